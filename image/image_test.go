package main

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
)

// realBuild is of what `make image` fetched and built.
func realBuild(t *testing.T) build {
	t.Helper()
	tag, err := name.NewTag("localhost/weft:1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	return build{
		name: tag, version: "1.2.3", revision: "0123abc", created: time.Unix(1_800_000_000, 0).UTC(),
		programs: "../bin/image", debian: "../bin/image/debian", documents: []string{"../LICENSE"}, architectures: []string{"amd64", "arm64"},
	}
}

// TestImage reads the images back, as a container engine does. Of the same input, another build
// makes the same.
func TestImage(t *testing.T) {
	b := realBuild(t)
	index, err := b.index()
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(manifest.Manifests) != len(b.architectures) {
		t.Fatalf("the index has %d images", len(manifest.Manifests))
	}
	for _, m := range manifest.Manifests {
		t.Run(m.Platform.String(), func(t *testing.T) {
			image, err := index.Image(m.Digest)
			if err != nil {
				t.Fatal(err)
			}
			again, err := b.image(m.Platform.Architecture)
			if err != nil {
				t.Fatal(err)
			}
			if digest, err := again.Digest(); err != nil || digest != m.Digest {
				t.Errorf("built again, it is %v, not %v; %v", digest, m.Digest, err)
			}
			checkConfig(t, image, m.Platform.Architecture)
			files := extract(t, image)
			for name, f := range files {
				if err := files.complete(name, f, machines[m.Platform.Architecture]); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			files.checkPrograms(t)
			files.checkLicences(t)
		})
	}
}

func checkConfig(t *testing.T, image v1.Image, architecture string) {
	t.Helper()
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if config.OS != "linux" || config.Architecture != architecture || config.RootFS.Type != "layers" {
		t.Errorf("the image is for %s/%s, of %q", config.OS, config.Architecture, config.RootFS.Type)
	}
	if !slices.Equal(config.Config.Entrypoint, []string{"/usr/local/bin/weftd"}) {
		t.Errorf("it runs %q", config.Config.Entrypoint)
	}
	for label, want := range map[string]string{"version": "1.2.3", "revision": "0123abc", "created": "2027-01-15T08:00:00Z"} {
		if got := config.Config.Labels["org.opencontainers.image."+label]; got != want {
			t.Errorf("label %s is %q, not %q", label, got, want)
		}
	}
}

// extracted are an image's files by their paths.
type extracted map[string]extractedFile

type extractedFile struct {
	tar.Header
	content []byte
}

// extract fails for files that are not root's, that others may change, or that run as another user.
func extract(t *testing.T, image v1.Image) extracted {
	t.Helper()
	files := extracted{}
	stream := mutate.Extract(image)
	defer stream.Close()
	for archive := tar.NewReader(stream); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		if header.Uid != 0 || header.Gid != 0 || header.Typeflag != tar.TypeSymlink && header.Mode&0o7022 != 0 {
			t.Errorf("%s is of %d:%d with mode %o", header.Name, header.Uid, header.Gid, header.Mode)
		}
		files[path.Clean(header.Name)] = extractedFile{*header, content}
	}
}

// complete returns what a file lacks: the target of a link, a library, the dynamic linker.
func (e extracted) complete(name string, f extractedFile, machine elf.Machine) error {
	if f.Typeflag == tar.TypeSymlink {
		target := path.Join(path.Dir(name), f.Linkname)
		if path.IsAbs(f.Linkname) {
			target = f.Linkname[1:]
		}
		if _, there := e[target]; !there {
			return fmt.Errorf("its target %s is missing", f.Linkname)
		}
	}
	if !bytes.HasPrefix(f.content, []byte(elf.ELFMAG)) {
		return nil
	}
	program, err := elf.NewFile(bytes.NewReader(f.content))
	if err != nil {
		return err
	}
	if program.Machine != machine {
		return fmt.Errorf("it is for %v", program.Machine)
	}
	libraries, err := program.ImportedLibraries()
	if err != nil {
		return err
	}
	triplet := map[elf.Machine]string{elf.EM_X86_64: "x86_64-linux-gnu", elf.EM_AARCH64: "aarch64-linux-gnu"}[machine]
	for _, library := range libraries {
		// Where Debian's dynamic linker looks.
		_, below := e[path.Join("lib", triplet, library)]
		_, usual := e[path.Join("usr/lib", triplet, library)]
		if !below && !usual {
			return fmt.Errorf("its library %s is missing", library)
		}
	}
	for _, p := range program.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		linker, err := io.ReadAll(p.Open())
		if err != nil {
			return err
		}
		if _, there := e[strings.Trim(string(linker), "/\x00")]; !there {
			return fmt.Errorf("its dynamic linker %s is missing", linker)
		}
	}
	return nil
}

// checkPrograms: nothing else can be run. A shell would help only intruders.
func (e extracted) checkPrograms(t *testing.T) {
	t.Helper()
	var found []string
	for name, f := range e {
		if f.Typeflag == tar.TypeReg && f.Mode&0o111 != 0 && !strings.Contains(path.Base(name), ".so") {
			found = append(found, name)
		}
	}
	slices.Sort(found)
	want := []string{
		"usr/local/bin/weft", "usr/local/bin/weft-cni", "usr/local/bin/weftd",
		"usr/local/libexec/cni/bandwidth", "usr/local/libexec/cni/loopback", "usr/local/libexec/cni/portmap", "usr/local/libexec/cni/tuning",
		"usr/sbin/nft", "usr/sbin/xtables-legacy-multi", "usr/sbin/xtables-nft-multi",
	}
	if !slices.Equal(found, want) {
		t.Errorf("the image's programs are %s", found)
	}
}

// checkLicences: each package that scanners find has its copyright file, and that is not empty.
func (e extracted) checkLicences(t *testing.T) {
	t.Helper()
	packages := 0
	for name, f := range e {
		of, isPackage := strings.CutPrefix(name, "var/lib/dpkg/status.d/")
		if !isPackage {
			continue
		}
		packages++
		if !bytes.Contains(f.content, []byte("Package: "+of+"\n")) {
			t.Errorf("%s is not of the package %s:\n%s", name, of, f.content)
		}
		if len(e[path.Join("usr/share/doc", of, "copyright")].content) == 0 {
			t.Errorf("no copyright file of %s", of)
		}
	}
	if !bytes.Contains(e["usr/share/doc/weft/LICENSE"].content, []byte("Apache License")) {
		t.Error("the image has no licence of weft's")
	}
	if packages == 0 {
		t.Error("the image names no packages")
	}
}

// TestIncompletePackages: the build fails if the packages lack a file that the image needs.
func TestIncompletePackages(t *testing.T) {
	// A real program of the host, which needs the C library.
	program, err := os.ReadFile("/usr/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	machine := machines[runtime.GOARCH]
	for _, test := range []struct {
		name    string
		files   map[string]string // content, or "-> target"
		wanted  string
		machine elf.Machine
		want    string
	}{
		{"a pattern without a file", map[string]string{"etc/protocols": "x"}, "etc/services", machine, "no package has a file etc/services"},
		{"a link to nowhere", map[string]string{"etc/protocols": "-> elsewhere"}, "etc/protocols", machine, "no package has the file etc/elsewhere"},
		{"a program without its library", map[string]string{"usr/bin/true": string(program)}, "usr/bin/true", machine, "no package has the library libc.so.6"},
		{"a program for another machine", map[string]string{"usr/bin/true": string(program)}, "usr/bin/true", elf.EM_S390, "not for EM_S390"},
		{"no copyright file", map[string]string{"etc/protocols": "x"}, "etc/protocols", machine, "no package has the file usr/share/doc/fake/copyright"},
		{
			"a licence that is missing",
			map[string]string{"etc/protocols": "x", "usr/share/doc/fake/copyright": "see `/usr/share/common-licenses/GPL-9'."},
			"etc/protocols", machine, "no package has the file usr/share/common-licenses/GPL-9",
		},
		{
			"complete",
			map[string]string{"etc/protocols": "-> p", "etc/p": "x", "usr/share/doc/fake/copyright": "see /usr/share/common-licenses/X.", "usr/share/common-licenses/X": "x"},
			"etc/p*s", machine, "",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			packages, err := readPackages(fakePackage(t, test.files))
			if err != nil {
				t.Fatal(err)
			}
			files, err := selectFiles(packages, []string{test.wanted}, test.machine)
			if test.want == "" {
				want := []string{"etc/p", "etc/protocols", "usr/share/common-licenses/X", "usr/share/doc/fake/copyright", "var/lib/dpkg/status.d/fake"}
				if err != nil || !slices.Equal(files.paths(), want) {
					t.Errorf("selected %s, %v", files.paths(), err)
				}
			} else if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("the error is %v", err)
			}
		})
	}
}

// fakePackage returns a folder with a package that has some files.
func fakePackage(t *testing.T, files map[string]string) string {
	t.Helper()
	root, folder := t.TempDir(), t.TempDir()
	files["DEBIAN/control"] = "Package: fake\nVersion: 1\nArchitecture: all\nMaintainer: weft\nDescription: fake\n"
	for name, content := range files {
		where := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(where), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, isLink := strings.CutPrefix(content, "-> "); isLink {
			err = os.Symlink(target, where)
		} else {
			err = os.WriteFile(where, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("dpkg-deb", "--build", root, filepath.Join(folder, "fake_1_all.deb")).CombinedOutput(); err != nil {
		t.Fatalf("build a package: %v\n%s", err, out)
	}
	return folder
}

func TestOptions(t *testing.T) {
	complete := []string{"-output", "o", "-name", "localhost/weft:1", "-version", "1", "-revision", "r", "-created", "1", "-programs", "p", "-debian", "d"}
	for _, test := range []struct {
		name string
		args []string
		want string
	}{
		{"no architecture", complete, "is missing"},
		{"an unknown architecture", append(slices.Clone(complete), "mips"), `unknown architecture "mips"; write amd64 or arm64`},
		{"a tag with a plus sign", append(slices.Clone(complete), "-name", "weft:1+2", "amd64"), "write NAME:TAG"},
		{"no number", []string{"-created", "yesterday"}, "invalid value"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var stderr strings.Builder
			if status := run(test.args, &stderr); status != 2 || !strings.Contains(stderr.String(), test.want) {
				t.Errorf("status %d: %s", status, stderr.String())
			}
		})
	}
}
