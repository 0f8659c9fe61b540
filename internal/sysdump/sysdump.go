// Package sysdump collects what a maintainer needs to know of a host on which weft does not do
// what it should: one archive, from which all secrets are removed.
//
// What can't be collected is an error in the archive's manifest, and no more. Collecting only
// looks: it changes nothing on the host, and the time and the size of each file are bounded.
package sysdump

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"weft/internal/doctor"
	"weft/internal/version"
)

const (
	// fileLimit bounds the time for one file.
	fileLimit = 20 * time.Second

	// mostBytes bounds one file.
	mostBytes = 32 << 20
)

// Manifest is the last file of an archive.
type Manifest struct {
	Version string    `json:"version"` // of weft
	Node    string    `json:"node,omitempty"`
	Began   time.Time `json:"began"`
	Files   []File    `json:"files"`
}

// File is one that was collected, or that should have been.
type File struct {
	Name  string `json:"name"`
	Bytes int    `json:"bytes"`

	// Error is why the file is missing or not complete.
	Error string `json:"error,omitempty"`
}

// Failed returns how many files are missing or not complete.
func (m Manifest) Failed() (n int) {
	for _, f := range m.Files {
		if f.Error != "" {
			n++
		}
	}
	return n
}

// item is a file to collect. The text of one with an error counts too.
type item struct {
	name    string
	collect func(context.Context) ([]byte, error)
}

// errTruncated says that there is more.
var errTruncated = fmt.Errorf("only the first %d MiB are kept", mostBytes>>20)

// Write collects all files, and writes the archive to out. It calls progress before each file.
func Write(ctx context.Context, out io.Writer, in doctor.Input, progress func(name string, number, of int)) (Manifest, error) {
	m := Manifest{Version: version.Version, Node: in.Config.Node, Began: time.Now().UTC().Truncate(time.Second), Files: []File{}}
	zip := gzip.NewWriter(out)
	archive := tar.NewWriter(zip)
	add := func(name string, text []byte) error {
		header := &tar.Header{Name: m.folder() + name, Mode: 0o600, Size: int64(len(text)), ModTime: m.Began, Format: tar.FormatPAX}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		_, err := archive.Write(text)
		return err
	}
	s := newScrubber(in)
	items := collection(ctx, in)
	for i, it := range items {
		progress(it.name, i+1, len(items))
		text, err := bounded(ctx, it.collect)
		if ctx.Err() != nil {
			return m, ctx.Err()
		}
		text = s.scrub(text)
		f := File{Name: it.name, Bytes: len(text)}
		if err != nil {
			f.Error = string(s.scrub([]byte(err.Error())))
		}
		m.Files = append(m.Files, f)
		if len(text) > 0 {
			if err := add(it.name, text); err != nil {
				return m, fmt.Errorf("write the archive: %w", err)
			}
		}
	}
	manifest, err := json.MarshalIndent(m, "", "  ")
	if err == nil {
		err = add("manifest.json", append(manifest, '\n'))
	}
	if err := errors.Join(err, archive.Close(), zip.Close()); err != nil {
		return m, fmt.Errorf("write the archive: %w", err)
	}
	return m, nil
}

// folder is that of all files in the archive.
func (m Manifest) folder() string {
	return fmt.Sprintf("weft-sysdump-%s-%s/", fileName(m.Node), m.Began.Format("20060102T150405Z"))
}

// FileName is that of an archive of now.
func FileName(node string) string {
	m := Manifest{Node: node, Began: time.Now().UTC()}
	return m.folder()[:len(m.folder())-1] + ".tar.gz"
}

// bounded collects a file, and doesn't wait for a system call that hangs.
func bounded(ctx context.Context, collect func(context.Context) ([]byte, error)) ([]byte, error) {
	type result struct {
		text []byte
		err  error
	}
	const grace = time.Second // for what ends with ctx to say why
	ctx, cancel := context.WithTimeout(ctx, fileLimit)
	defer cancel()
	done := make(chan result, 1)
	go func() {
		text, err := collect(ctx)
		done <- result{text, err}
	}()
	select {
	case r := <-done:
		if len(r.text) > mostBytes {
			// Whole lines: the end of half a secret would not be recognized.
			return r.text[:bytes.LastIndexByte(r.text[:mostBytes], '\n')+1], errors.Join(r.err, errTruncated)
		}
		return r.text, r.err
	case <-time.After(fileLimit + grace):
		return nil, fmt.Errorf("no answer in %s", fileLimit)
	}
}
