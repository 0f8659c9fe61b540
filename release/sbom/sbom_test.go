package sbom

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/CycloneDX/cyclonedx-go"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// thisProgram is a Go program like any other.
func thisProgram(t *testing.T) []byte {
	t.Helper()
	name, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func newList() *List {
	return New(Product{
		Name: "weft", Version: "1.2.3", Created: time.Unix(1_800_000_000, 0),
		Licences: func(path string) []string {
			if path == "github.com/CycloneDX/cyclonedx-go" {
				return []string{"Apache-2.0"}
			}
			return nil
		},
	})
}

// written reads a list as those read it that get it.
func written(t *testing.T, l *List) (components map[string]cyclonedx.Component, needs map[string][]string) {
	t.Helper()
	var first, second bytes.Buffer
	if err := l.Write(&first); err != nil {
		t.Fatal(err)
	}
	if err := l.Write(&second); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("the same list is written in two ways")
	}
	var bom cyclonedx.BOM
	if err := cyclonedx.NewBOMDecoder(&first, cyclonedx.BOMFileFormatJSON).Decode(&bom); err != nil {
		t.Fatal(err)
	}
	if c := bom.Metadata.Component; bom.Metadata.Timestamp != "2027-01-15T08:00:00Z" || c.Name != "weft" || c.Version != "1.2.3" {
		t.Errorf("the list is about %s %s, of %s", c.Name, c.Version, bom.Metadata.Timestamp)
	}
	components, needs = map[string]cyclonedx.Component{}, map[string][]string{}
	for _, c := range *bom.Components {
		components[c.BOMRef] = c
	}
	for _, d := range *bom.Dependencies {
		needs[d.Ref] = *d.Dependencies
	}
	return components, needs
}

func TestProgramsModulesAreListed(t *testing.T) {
	content := thisProgram(t)
	l := newList()
	if err := l.AddProgram("program", "linux/amd64", content); err != nil {
		t.Fatal(err)
	}
	components, needs := written(t, l)
	program := components["linux/amd64/program"]
	if program.Hashes == nil || (*program.Hashes)[0].Value != fmt.Sprintf("%x", sha256.Sum256(content)) {
		t.Errorf("the program's hash is %v", program.Hashes)
	}
	if !slices.Equal(needs["product"], []string{"linux/amd64/program"}) {
		t.Errorf("the product needs %s", needs["product"])
	}
	std := "pkg:golang/std@" + strings.TrimPrefix(runtime.Version(), "go")
	if !slices.Contains(needs["linux/amd64/program"], std) {
		t.Errorf("the program needs %s, and not %s", needs["linux/amd64/program"], std)
	}
	for _, reference := range needs["linux/amd64/program"] {
		c := components[reference]
		if c.PackageURL != reference || c.Version == "" {
			t.Errorf("%s is %+v", reference, c)
		}
		if c.Name == "github.com/CycloneDX/cyclonedx-go" && (c.Licenses == nil || (*c.Licenses)[0].License.ID != "Apache-2.0") {
			t.Errorf("%s has no licence", c.Name)
		}
	}
	if err := l.AddProgram("no-program", "linux/amd64", []byte("#!/bin/sh")); err == nil || !strings.Contains(err.Error(), "no-program") {
		t.Errorf("of what is no Go program the error is %v", err)
	}
}

func TestImagesPackagesAreListed(t *testing.T) {
	archive := newImage(t, map[string]string{
		"usr/local/bin/weftd":          string(thisProgram(t)),
		"usr/sbin/nft":                 "no Go program",
		"var/lib/dpkg/status.d/libgmp": "Package: libgmp10\nVersion: 2:6.2.1+dfsg1-1.1\nArchitecture: arm64\nMaintainer: A <a@example.org>\nDescription: x\n Version: 9\n",
	})
	l := newList()
	if err := l.AddImage(archive); err != nil {
		t.Fatal(err)
	}
	components, needs := written(t, l)
	want := []string{"linux/arm64/weftd", "pkg:deb/debian/libgmp10@2%3A6.2.1%2Bdfsg1-1.1?arch=arm64"}
	if !slices.Equal(needs["product"], want) {
		t.Errorf("the product needs %s", needs["product"])
	}
	if c := components[want[1]]; c.Version != "2:6.2.1+dfsg1-1.1" || c.Supplier == nil || c.Supplier.Name != "A <a@example.org>" {
		t.Errorf("the package is %+v", c)
	}
}

func TestBrokenImages(t *testing.T) {
	for _, test := range []struct {
		name    string
		archive string
		want    string
	}{
		{"no archive", filepath.Join(t.TempDir(), "none.tar"), "no such file"},
		{"a package without a version", newImage(t, map[string]string{"var/lib/dpkg/status.d/x": "Package: x\n"}), "no field Version"},
		{"a file outside", writeTar(t, map[string]string{"../outside": "x"}), "outside of the archive"},
		{"no image", writeTar(t, map[string]string{"file": "x"}), "index.json"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := newList().AddImage(test.archive); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

// newImage returns an archive with an image for arm64, in an index in the index.
func newImage(t *testing.T, files map[string]string) string {
	t.Helper()
	layerFile := writeTar(t, files)
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return os.Open(layerFile) })
	if err != nil {
		t.Fatal(err)
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	inner := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{
		Platform: &v1.Platform{OS: "linux", Architecture: "arm64"},
	}})
	folder := t.TempDir()
	if _, err := layout.Write(folder, mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: inner})); err != nil {
		t.Fatal(err)
	}
	packed := map[string]string{}
	err = filepath.WalkDir(folder, func(name string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(name)
		packed[strings.TrimPrefix(name, folder+"/")] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return writeTar(t, packed)
}

func writeTar(t *testing.T, files map[string]string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "archive.tar")
	out, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	archive := tar.NewWriter(out)
	for name, content := range files {
		if err := archive.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(archive, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	return name
}
