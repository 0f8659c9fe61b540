package sbom

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// AddImage adds weft's programs and Debian's packages of an image, which is an archive in OCI's layout.
func (l *List) AddImage(archive string) error {
	folder, err := os.MkdirTemp("", "weft-sbom-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	if err := unpack(archive, folder); err != nil {
		return fmt.Errorf("unpack %s: %w", archive, err)
	}
	index, err := layout.ImageIndexFromPath(folder)
	if err == nil {
		err = l.addIndex(index)
	}
	if err != nil {
		return fmt.Errorf("read the image %s: %w", archive, err)
	}
	return nil
}

// addIndex adds the images of an index, and of those in it.
func (l *List) addIndex(index v1.ImageIndex) error {
	manifest, err := index.IndexManifest()
	if err != nil {
		return err
	}
	for _, m := range manifest.Manifests {
		if m.MediaType.IsIndex() {
			inner, err := index.ImageIndex(m.Digest)
			if err == nil {
				err = l.addIndex(inner)
			}
			if err != nil {
				return err
			}
			continue
		}
		image, err := index.Image(m.Digest)
		if err != nil {
			return err
		}
		if m.Platform == nil {
			return fmt.Errorf("%s has no platform", m.Digest)
		}
		if err := l.addFiles(image, m.Platform.String()); err != nil {
			return err
		}
	}
	return nil
}

func (l *List) addFiles(image v1.Image, platform string) error {
	stream := mutate.Extract(image)
	defer stream.Close()
	for files := tar.NewReader(stream); ; {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		folder, name := path.Split(path.Clean(header.Name))
		if header.Typeflag != tar.TypeReg || folder != "usr/local/bin/" && folder != "var/lib/dpkg/status.d/" {
			continue
		}
		content, err := io.ReadAll(files)
		if err != nil {
			return err
		}
		if folder == "usr/local/bin/" {
			err = l.AddProgram(name, platform, content)
		} else {
			err = l.AddDebian(string(content))
		}
		if err != nil {
			return err
		}
	}
}

// unpack writes the files of an archive into a folder, and nowhere else.
func unpack(archive, folder string) error {
	from, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer from.Close()
	for files := tar.NewReader(from); ; {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		if !filepath.IsLocal(header.Name) {
			return fmt.Errorf("the file %s is outside of the archive", strings.ToValidUTF8(header.Name, "?"))
		}
		to := filepath.Join(folder, header.Name)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		out, err := os.Create(to)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, files)
		if err := errors.Join(err, out.Close()); err != nil {
			return err
		}
	}
}
