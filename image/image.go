package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// programs are weft's own. All are in /usr/local/bin, weft-cni too: nodes have their folder of
// CNI plugins mounted over the image's.
var programs = []string{"weft", "weft-cni", "weftd"}

// plugins are those that weft install-cni gives to nodes that lack them. The runtime runs the first
// one for each pod, and weft-cni may have the others behind it.
var plugins = []string{"loopback", "bandwidth", "portmap", "tuning"}

// annotations describe the image in registries and to scanners. The image has them as labels too.
// https://github.com/opencontainers/image-spec/blob/main/annotations.md
func (b *build) annotations() map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":       "weft",
		"org.opencontainers.image.description": "A userspace overlay router for Kubernetes pod networks",
		"org.opencontainers.image.version":     b.version,
		"org.opencontainers.image.revision":    b.revision,
		"org.opencontainers.image.created":     b.created.Format(time.RFC3339),
		// Of weft, nft and iptables. /usr/share/doc has those of all packages.
		"org.opencontainers.image.licenses": "Apache-2.0 AND GPL-2.0-only AND GPL-2.0-or-later AND LGPL-2.1-or-later",
	}
}

// index returns the image for all architectures.
func (b *build) index() (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, architecture := range b.architectures {
		image, err := b.image(architecture)
		if err != nil {
			return nil, fmt.Errorf("make the image for %s: %w", architecture, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{
			Platform: &v1.Platform{OS: "linux", Architecture: architecture},
		}})
	}
	return mutate.Annotations(index, b.annotations()).(v1.ImageIndex), nil
}

// image returns the image for one architecture.
func (b *build) image(architecture string) (v1.Image, error) {
	packages, err := readPackages(filepath.Join(b.debian, architecture))
	if err != nil {
		return nil, err
	}
	lower, err := selectFiles(packages, wanted, machines[architecture])
	if err != nil {
		return nil, err
	}
	upper, err := b.programFiles(architecture)
	if err != nil {
		return nil, err
	}
	created := v1.Time{Time: b.created}
	config := &v1.ConfigFile{
		OS: "linux", Architecture: architecture, Created: created, RootFS: v1.RootFS{Type: "layers"},
		Config: v1.Config{
			Entrypoint: []string{"/usr/local/bin/weftd"},
			Env:        []string{"PATH=/usr/local/bin:/usr/sbin"},
			Labels:     b.annotations(),
		},
	}
	image, err := mutate.ConfigFile(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON), config)
	if err != nil {
		return nil, err
	}
	for _, add := range []struct {
		files   tree
		changed time.Time
		what    string
	}{
		{lower, lower.newest(), "nft and iptables of Debian's packages"},
		{upper, b.created, "weft " + b.version},
	} {
		layer, err := add.files.layer(add.changed)
		if err != nil {
			return nil, err
		}
		image, err = mutate.Append(image, mutate.Addendum{Layer: layer, History: v1.History{Created: created, CreatedBy: add.what}})
		if err != nil {
			return nil, err
		}
	}
	return mutate.Annotations(image, b.annotations()).(v1.Image), nil
}

// programFiles reads weft's programs.
func (b *build) programFiles(architecture string) (tree, error) {
	files := tree{"run": {mode: 0o755, folder: true}} // for the lock of iptables-legacy
	check := selection{machine: machines[architecture]}
	add := func(from, to string) error {
		content, err := os.ReadFile(from)
		if err != nil {
			return fmt.Errorf("read weft's programs: %w; `make image` builds them", err)
		}
		// They are linked statically.
		needs, err := check.needs(content)
		if err != nil {
			return fmt.Errorf("read %s: %w", from, err)
		}
		if len(needs) > 0 {
			return fmt.Errorf("%s needs the libraries %s; build it with CGO_ENABLED=0", from, needs)
		}
		files[to] = &file{mode: 0o755, content: content}
		return nil
	}
	for _, program := range programs {
		if err := add(filepath.Join(b.programs, architecture, program), path.Join("usr/local/bin", program)); err != nil {
			return nil, err
		}
	}
	for _, plugin := range plugins {
		if err := add(filepath.Join(b.programs, architecture, "plugins", plugin), path.Join("usr/local/libexec/cni", plugin)); err != nil {
			return nil, err
		}
	}
	for _, document := range b.documents {
		content, err := os.ReadFile(document)
		if err != nil {
			return nil, fmt.Errorf("read the documents: %w", err)
		}
		files[path.Join("usr/share/doc/weft", filepath.Base(document))] = &file{mode: 0o644, content: content}
	}
	return files, nil
}

// layer packs files and the folders they are in, all of root and with one time.
func (t tree) layer(changed time.Time) (v1.Layer, error) {
	folders := map[string]bool{}
	var buffer bytes.Buffer
	archive := tar.NewWriter(&buffer)
	add := func(header tar.Header, content []byte) error {
		header.ModTime, header.Format = changed, tar.FormatPAX
		header.Size = int64(len(content))
		if err := archive.WriteHeader(&header); err != nil {
			return err
		}
		_, err := archive.Write(content)
		return err
	}
	for _, name := range t.paths() {
		for i, c := range name {
			if folder := name[:i]; c == '/' && !folders[folder] {
				folders[folder] = true
				if err := add(tar.Header{Typeflag: tar.TypeDir, Name: folder + "/", Mode: 0o755}, nil); err != nil {
					return nil, err
				}
			}
		}
		f := t[name]
		header := tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: f.mode}
		switch {
		case f.folder:
			header.Typeflag, header.Name = tar.TypeDir, name+"/"
		case f.link != "":
			header.Typeflag, header.Linkname = tar.TypeSymlink, f.link
		}
		if err := add(header, f.content); err != nil {
			return nil, err
		}
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buffer.Bytes())), nil }
	return tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
}

// writeLayout writes the image as a folder in OCI's layout. Both annotations hold the whole name:
// containerd takes the first, podman and skopeo the second.
func writeLayout(folder string, tag name.Tag, index v1.ImageIndex) error {
	l, err := layout.Write(folder, empty.Index)
	if err != nil {
		return err
	}
	return l.AppendIndex(index, layout.WithAnnotations(map[string]string{
		"io.containerd.image.name":          tag.Name(),
		"org.opencontainers.image.ref.name": tag.Name(),
	}))
}

// archive packs a folder into a tar file, which appears when it is complete.
func archive(output, folder string, changed time.Time) (err error) {
	var names []string
	err = filepath.WalkDir(folder, func(name string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		return err
	}
	slices.Sort(names)
	var buffer bytes.Buffer
	archive := tar.NewWriter(&buffer)
	for _, name := range names {
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		header := tar.Header{
			Typeflag: tar.TypeReg, Name: strings.TrimPrefix(name, folder+"/"), Mode: 0o644,
			Size: int64(len(content)), ModTime: changed, Format: tar.FormatPAX,
		}
		if err := archive.WriteHeader(&header); err != nil {
			return err
		}
		if _, err := archive.Write(content); err != nil {
			return err
		}
	}
	if err := archive.Close(); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(output), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(output+".new", buffer.Bytes(), 0o644); err != nil {
		return err
	}
	return os.Rename(output+".new", output)
}
