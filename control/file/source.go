// Package file is the control source that is one YAML file, nodes.yaml, the same on
// every node. It only reads the file, never writes it, and starts nothing before Run.
package file

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"

	"weft/control"
	"weft/internal/strict/yamltree"
)

const (
	// debounceInterval is how long nothing must have happened beside the file before it is
	// read: an editor or a copy that writes in pieces should be done.
	debounceInterval = 100 * time.Millisecond

	// longestDebounce is how long changes without a pause put reading off at most.
	longestDebounce = time.Second

	// pollInterval is how often the file is read without a reload: for
	// what inotify(7) doesn't tell, such as a folder that is replaced as a whole, a
	// symbolic link further up the path, or a change on another host's file system.
	pollInterval = 10 * time.Second
)

// Source watches one nodes.yaml. It implements control.Source.
type Source struct {
	// Check returns why the file must not be believed, by its path; nil: it is.
	Check func(path string) error

	// Contact is when the file could be read.
	control.Contact

	path string
	poll time.Duration
}

// New returns the source that reads the file at path. The file needn't exist yet.
func New(path string) *Source { return &Source{path: filepath.Clean(path), poll: pollInterval} }

// Origin is the path of the file.
func (s *Source) Origin() string { return s.path }

// Load returns what the file says now.
func (s *Source) Load(context.Context) (control.State, error) {
	data, err := s.read()
	if err != nil {
		return control.State{}, err
	}
	return Parse(s.path, data)
}

func (s *Source) read() (data []byte, err error) {
	defer func() {
		if err != nil {
			s.Lost()
		} else {
			s.Made()
		}
	}()
	if s.Check != nil {
		if err := s.Check(s.path); err != nil {
			return nil, fmt.Errorf("the list of nodes is not trusted: %w", err)
		}
	}
	data, err = yamltree.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w; write it, or set the configuration's key control.file to another", s.path, fs.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("read the list of nodes: %w", err)
	}
	return data, nil
}

// Run implements control.Source. What is unchanged since the last call of emit,
// good or bad, is emitted again on reload only.
func (s *Source) Run(ctx context.Context, reload <-chan struct{}, emit func(control.State, error)) error {
	w := watch{source: s, emit: emit, debounce: control.Debounce{Interval: debounceInterval, Longest: longestDebounce}}
	// Without a watcher, reading every now and then must do: the limit of inotify
	// instances is the host's, and may be used up by others.
	var events <-chan fsnotify.Event
	var lost <-chan error // such as an overflow of the queue
	if watcher, err := fsnotify.NewWatcher(); err != nil {
		emit(control.State{}, fmt.Errorf("changes of %s are noticed within %s only; raise the sysctl fs.inotify.max_user_instances: %w", s.path, s.poll, err))
	} else {
		defer watcher.Close()
		w.watcher, events, lost = watcher, watcher.Events, watcher.Errors
	}
	poll := time.NewTicker(s.poll)
	defer poll.Stop()

	w.check(true)
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, open := <-reload:
			if !open {
				reload = nil
				continue
			}
			w.check(true)
		case <-events:
			w.debounce.Disturb()
		case <-lost: //nolint:errcheck // reading the file makes up for any event that was lost
			w.debounce.Disturb()
		case <-w.debounce.Due:
			w.check(false)
		case <-poll.C:
			if w.watchFolders(); w.unchanged() {
				s.Made()
			} else {
				w.check(false)
			}
		}
	}
}

// seed makes sums of this process.
var seed = maphash.MakeSeed()

// watch is the state of one Run.
type watch struct {
	source  *Source
	watcher *fsnotify.Watcher // nil if there is none
	emit    func(control.State, error)

	// What was read last: something with this sum, or failure.
	sum     uint64
	failure string
	stamp   stamp

	debounce control.Debounce // of what happens beside the file, until it is read
}

// check reads the file and emits what it says, if that is news, or after a reload.
func (w *watch) check(always bool) {
	w.debounce.Done()
	// Before reading, so that no change falls in between.
	w.watchFolders()
	w.stamp = stampOf(w.source.path)
	data, err := w.source.read()
	failure, sum := "", maphash.Bytes(seed, data)
	if err != nil {
		failure = err.Error()
	}
	if !always && failure == w.failure && sum == w.sum {
		return
	}
	w.sum, w.failure = sum, failure
	if err != nil {
		w.emit(control.State{}, err)
		return
	}
	w.emit(Parse(w.source.path, data))
}

// unchanged says that the file needn't be read: of 150,000 pod CIDRs it has 10 MB.
func (w *watch) unchanged() bool { return w.stamp != stamp{} && w.stamp == stampOf(w.source.path) }

// stamp is what differs after a file has changed or another one has taken its place.
type stamp struct {
	device, inode  uint64
	size           int64
	changed, wrote unix.Timespec
}

// stampOf returns the zero stamp if there is none, or if it was written so lately that it
// might be written again without a different time.
func stampOf(path string) stamp {
	const coarse = 2 * time.Second // more than any file system's times are apart
	var s unix.Stat_t
	if err := unix.Stat(path, &s); err != nil || time.Since(time.Unix(s.Ctim.Unix())) < coarse || time.Since(time.Unix(s.Mtim.Unix())) < coarse {
		return stamp{}
	}
	return stamp{s.Dev, s.Ino, s.Size, s.Ctim, s.Mtim}
}

// watchFolders watches the folder that holds the file and, if the file is a
// symbolic link, the one that holds its target. Folders rather than the file:
// editors and Kubernetes' ConfigMaps replace it by rename. Adding a folder again
// does nothing, unless another one has taken its place. One that can't be watched
// is left to the poll.
func (w *watch) watchFolders() {
	if w.watcher == nil {
		return
	}
	folders := []string{filepath.Dir(w.source.path)}
	if target, err := filepath.EvalSymlinks(w.source.path); err == nil {
		folders = append(folders, filepath.Dir(target))
	}
	for _, old := range w.watcher.WatchList() {
		if old != folders[0] && old != folders[len(folders)-1] {
			_ = w.watcher.Remove(old)
		}
	}
	for _, folder := range folders {
		_ = w.watcher.Add(folder)
	}
}
