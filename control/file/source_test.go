package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft/control"
)

var _ control.Source = (*Source)(nil)

// nodesFile is a valid nodes.yaml with one node.
func nodesFile(name string) string {
	return fmt.Sprintf("nodes:\n- name: %s\n  endpoint: 192.168.77.1:9338\n  podCIDRs: [10.244.1.0/24]\n", name)
}

// emission is what emit was called with: the nodes' names, or an error.
type emission struct {
	names string
	err   error
}

// watched is a Run in progress.
type watched struct {
	t         *testing.T
	path      string
	source    *Source
	reload    chan struct{}
	emissions chan emission
}

// run watches path until the test ends. Without polling, a change can only be
// noticed by inotify.
func run(t *testing.T, path string, poll time.Duration) *watched {
	t.Helper()
	s := New(path)
	w := &watched{t: t, path: path, source: s, reload: make(chan struct{}), emissions: make(chan emission, 100)}
	s.poll = poll
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		done <- s.Run(ctx, w.reload, func(state control.State, err error) {
			var names []string
			for _, n := range state.Nodes {
				names = append(names, n.Name)
			}
			w.emissions <- emission{strings.Join(names, " "), err}
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return w
}

const (
	never = time.Hour

	// hangLimit is only for a hang to end.
	hangLimit = 2 * time.Minute
)

// wantNodes waits for the next emission, which must be these nodes.
func (w *watched) wantNodes(names string) {
	w.t.Helper()
	if e := w.next(); e.err != nil || e.names != names {
		w.t.Fatalf("emitted %q, %v; want %q", e.names, e.err, names)
	}
}

func (w *watched) wantError() error {
	w.t.Helper()
	e := w.next()
	if e.err == nil {
		w.t.Fatalf("emitted %q; want an error", e.names)
	}
	return e.err
}

func (w *watched) next() emission {
	w.t.Helper()
	select {
	case e := <-w.emissions:
		return e
	case <-time.After(hangLimit):
		w.t.Fatal("nothing was emitted")
		panic("unreachable")
	}
}

// wantSilence fails if anything is emitted for longer than a change takes.
func (w *watched) wantSilence() {
	w.t.Helper()
	select {
	case e := <-w.emissions:
		w.t.Fatalf("emitted %q, %v; want nothing", e.names, e.err)
	case <-time.After(4 * debounceInterval):
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// replace writes the file as most editors and renameio do.
func replace(t *testing.T, path, content string) {
	t.Helper()
	write(t, path+".new", content)
	rename(t, path+".new", path)
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func symlink(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path+".link"); err != nil {
		t.Fatal(err)
	}
	rename(t, path+".link", path)
}

func TestChangesAreEmitted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nodes.yaml")
	write(t, path, nodesFile("a"))
	w := run(t, path, never)
	w.wantNodes("a")

	write(t, path, nodesFile("b"))
	w.wantNodes("b")
	replace(t, path, nodesFile("c"))
	w.wantNodes("c")
	write(t, path, nodesFile("d"))
	w.wantNodes("d")
}

func TestUnchangedContentIsNotEmittedAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nodes.yaml")
	write(t, path, nodesFile("a"))
	w := run(t, path, debounceInterval/2)
	w.wantNodes("a")

	replace(t, path, nodesFile("a"))
	write(t, filepath.Join(filepath.Dir(path), "other"), "noise")
	w.wantSilence()

	// As a whole: on a busy machine a half-written file is read, and is another mistake.
	replace(t, path, "nodes: broken")
	_ = w.wantError()
	replace(t, path, "nodes: broken")
	w.wantSilence()
}

func TestReloadEmitsEvenWhatIsUnchanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nodes.yaml")
	write(t, path, nodesFile("a"))
	w := run(t, path, never)
	w.wantNodes("a")
	w.reload <- struct{}{}
	w.wantNodes("a")
	close(w.reload)
	w.wantSilence()
}

func TestManyWritesMakeFewEmissions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nodes.yaml")
	write(t, path, nodesFile("a"))
	w := run(t, path, never)
	w.wantNodes("a")
	for i := range 50 {
		replace(t, path, nodesFile(fmt.Sprintf("n%d", i)))
	}
	emitted := 1
	for w.next().names != "n49" {
		emitted++
	}
	if emitted > 25 { // 1, unless this test was held up in between
		t.Errorf("%d emissions for 50 writes", emitted)
	}
}

func TestEndlessNoiseDoesNotDelayForEver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nodes.yaml")
	write(t, path, nodesFile("a"))
	w := run(t, path, never)
	w.wantNodes("a")
	write(t, path, nodesFile("b"))
	for end := time.Now().Add(hangLimit); time.Now().Before(end); time.Sleep(debounceInterval / 4) {
		write(t, path+".log", time.Now().String())
		if len(w.emissions) > 0 {
			w.wantNodes("b")
			return
		}
	}
	t.Fatal("nothing was emitted while another file kept changing")
}

func TestBrokenOrVanishedFileKeepsBeingWatched(t *testing.T) {
	path := filepath.Join(t.TempDir(), "nodes.yaml")
	w := run(t, path, never)
	reachable := func(want bool) {
		t.Helper()
		if at, got := w.source.LastContact(); got != want {
			t.Errorf("reachable %t, last contact at %s; want %t", got, at, want)
		}
	}
	if err := w.wantError(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent file: %v", err)
	}
	reachable(false)
	write(t, path, nodesFile("a"))
	w.wantNodes("a")
	write(t, path, "nodes:\n- nam: a\n")
	if err := w.wantError(); !strings.Contains(err.Error(), "did you mean name?") {
		t.Errorf("broken file: %v", err)
	}
	reachable(true)
	write(t, path, nodesFile("b"))
	w.wantNodes("b")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := w.wantError(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("vanished file: %v", err)
	}
	reachable(false)
	// Vanished and come back, the same content is news.
	write(t, path, nodesFile("b"))
	w.wantNodes("b")
}

// Kubernetes mounts a ConfigMap as nodes.yaml → ..data/nodes.yaml and ..data →
// ..TIME, and updates it by replacing ..data.
func TestConfigMapIsFollowed(t *testing.T) {
	dir := t.TempDir()
	version := func(name string) string {
		folder := filepath.Join(dir, "..version-"+name)
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(folder, "nodes.yaml"), nodesFile(name))
		return filepath.Base(folder)
	}
	symlink(t, version("a"), filepath.Join(dir, "..data"))
	symlink(t, "..data/nodes.yaml", filepath.Join(dir, "nodes.yaml"))
	w := run(t, filepath.Join(dir, "nodes.yaml"), never)
	w.wantNodes("a")
	for _, name := range []string{"b", "c", "d"} {
		symlink(t, version(name), filepath.Join(dir, "..data"))
		w.wantNodes(name)
	}
	if err := os.RemoveAll(filepath.Join(dir, "..version-c")); err != nil {
		t.Fatal(err)
	}
	w.wantSilence()
}

func TestTargetOfASymlinkIsWatched(t *testing.T) {
	target := filepath.Join(t.TempDir(), "target.yaml")
	path := filepath.Join(t.TempDir(), "nodes.yaml")
	write(t, target, nodesFile("a"))
	symlink(t, target, path)
	w := run(t, path, never)
	w.wantNodes("a")
	replace(t, target, nodesFile("b"))
	w.wantNodes("b")

	other := filepath.Join(t.TempDir(), "other.yaml")
	write(t, other, nodesFile("c"))
	symlink(t, other, path)
	w.wantNodes("c")
	write(t, other, nodesFile("d"))
	w.wantNodes("d")
}

func TestReplacedFolderIsFoundByPolling(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "weft")
	fill := func(folder, name string) {
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(folder, "nodes.yaml"), nodesFile(name))
	}
	w := run(t, filepath.Join(dir, "nodes.yaml"), debounceInterval)
	_ = w.wantError() // the folder doesn't exist yet
	fill(dir, "a")
	w.wantNodes("a")

	fill(filepath.Join(parent, "next"), "b")
	rename(t, dir, filepath.Join(parent, "old"))
	_ = w.wantError()
	rename(t, filepath.Join(parent, "next"), dir)
	w.wantNodes("b")
	write(t, filepath.Join(dir, "nodes.yaml"), nodesFile("c"))
	w.wantNodes("c")
}

// TestAFileThatDidNotChangeNeedNotBeRead: but whatever happens to it shows, even if it is
// written twice within the coarseness of its times.
func TestAFileThatDidNotChangeNeedNotBeRead(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "nodes.yaml")
	write := func(path, content string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	settled := func() stamp {
		t.Helper()
		if got := stampOf(path); got != (stamp{}) {
			t.Errorf("what was written just now is taken for settled: %v", got)
		}
		time.Sleep(2100 * time.Millisecond)
		return stampOf(path)
	}
	if got := stampOf(path); got != (stamp{}) {
		t.Errorf("a file that is not there: %v", got)
	}
	write(path, "abc")
	first := settled()
	if first == (stamp{}) || stampOf(path) != first {
		t.Errorf("it did not change: %v, %v", first, stampOf(path))
	}
	write(path, "abd")
	second := settled()
	if second == first {
		t.Error("it was written in place")
	}
	write(path+".new", "abd")
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	if third := settled(); third == second {
		t.Error("it was replaced")
	}
}
