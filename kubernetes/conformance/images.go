package main

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// The suite names images of a registry. They are made here instead, under the same names: of the
// same programs, built from the sources that the suite comes with, and of Debian's packages.

// coreDNSImage is the one of coredns.yaml.
const coreDNSImage = "localhost/coredns:1"

// recipe is how an image is made. Every image has busybox, and a shell by that.
type recipe struct {
	// files are those of the suite's folder, in the root of the image.
	files []string

	// debian are programs of the machine. They come before busybox's of the same name, and with
	// the libraries that they need.
	debian []string

	entrypoint, command []string
}

// netTools are what tests run in the image agnhost: its Dockerfile installs them too. They need a
// shell that is not busybox's, which runs its own nc, and a wget that finds names by the libraries here.
var netTools = []string{"sh", "bash", "conntrack", "curl", "dig", "getent", "host", "ip", "nc", "nslookup", "ss", "wget"}

// recipes are the images that [sig-network] uses, by their names without registry and tag.
var recipes = map[string]recipe{
	"agnhost":                {files: []string{"agnhost", "coredns", "localhost.crt", "localhost.key"}, debian: netTools, entrypoint: []string{"/agnhost"}, command: []string{"pause"}},
	"busybox":                {command: []string{"sh"}},
	"coredns":                {files: []string{"coredns"}, entrypoint: []string{"/coredns"}},
	"distroless-iptables":    {debian: []string{"conntrack"}},
	"jessie-dnsutils":        {debian: netTools, command: []string{"sh"}},
	"nginx":                  {command: []string{"sleep", "86400"}}, // [sig-network] wants it to run, and asks it nothing
	"pause":                  {files: []string{"agnhost"}, entrypoint: []string{"/agnhost", "pause"}},
	"regression-issue-74839": {files: []string{"regression-issue-74839"}, entrypoint: []string{"/regression-issue-74839"}},
}

// writeImages writes an archive of all images that the suite names and that are made here. Pods
// whose image is not in there fail.
func writeImages(ctx context.Context, archive string, p programs) error {
	out, err := exec.CommandContext(ctx, p.e2e(), "--list-images").Output()
	if err != nil {
		return fmt.Errorf("list the suite's images: %w", err)
	}
	images := make(map[name.Tag]v1.Image)
	for _, wanted := range append(strings.Fields(string(out)), coreDNSImage) {
		tag, err := name.NewTag(wanted)
		if err != nil {
			return fmt.Errorf("read the names of the suite's images: %w", err)
		}
		r, known := recipes[path.Base(tag.RepositoryStr())]
		if !known {
			continue
		}
		if images[tag], err = r.make(ctx, p); err != nil {
			return fmt.Errorf("make the image %s: %w", wanted, err)
		}
	}
	return tarball.MultiWriteToFile(archive, images)
}

func (r recipe) make(ctx context.Context, p programs) (v1.Image, error) {
	root := newFileSystem()
	for _, file := range r.files {
		if err := root.addFile("/"+file, filepath.Join(p.suite, file)); err != nil {
			return nil, err
		}
	}
	for _, program := range r.debian {
		if err := root.addDebian(ctx, program); err != nil {
			return nil, err
		}
	}
	if err := root.addBusybox(ctx); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(root.open)
	if err != nil {
		return nil, err
	}
	image, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		OS: "linux", Architecture: runtime.GOARCH,
		Config: v1.Config{
			Env:        []string{"PATH=/bin:/"},
			Entrypoint: r.entrypoint, Cmd: r.command,
		},
	})
	if err != nil {
		return nil, err
	}
	return mutate.AppendLayers(image, layer)
}

// fileSystem is that of an image: what is added first stays.
type fileSystem struct {
	entries []entry
	added   map[string]bool
}

// entry is a header with the file of the machine that it is the header of, if it is one's.
type entry struct {
	tar.Header
	file string
}

func newFileSystem() *fileSystem {
	f := &fileSystem{added: make(map[string]bool)}
	for _, dir := range []string{"/bin", "/etc", "/tmp", "/uploads", "/usr/local"} {
		f.addDir(dir)
	}
	for _, other := range []string{"/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin"} {
		f.addLink(other, "/bin")
	}
	return f
}

func (f *fileSystem) add(e entry) {
	if f.added[e.Name] {
		return
	}
	if dir := path.Dir(e.Name); dir != "/" {
		f.addDir(dir)
	}
	f.added[e.Name] = true
	f.entries = append(f.entries, e)
}

func (f *fileSystem) addDir(name string) {
	f.add(entry{Header: tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755}})
}

func (f *fileSystem) addLink(name, to string) {
	f.add(entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}})
}

func (f *fileSystem) addFile(as, file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	f.add(entry{Header: tar.Header{Typeflag: tar.TypeReg, Name: as, Mode: 0o755, Size: info.Size()}, file: file})
	return nil
}

func (f *fileSystem) addBusybox(ctx context.Context) error {
	if err := f.addFile("/bin/busybox", "/bin/busybox"); err != nil {
		return fmt.Errorf("find busybox, which must be static: %w", err)
	}
	out, err := exec.CommandContext(ctx, "/bin/busybox", "--list").Output()
	if err != nil {
		return fmt.Errorf("list what busybox can: %w", err)
	}
	for applet := range strings.FieldsSeq(string(out)) {
		f.addLink("/bin/"+applet, "busybox")
	}
	return nil
}

// addDebian adds a program of the machine to /bin, and the libraries that it needs to where
// they are here.
func (f *fileSystem) addDebian(ctx context.Context, program string) error {
	file, err := exec.LookPath(program)
	if err != nil {
		return fmt.Errorf("%w; `scripts/deps conformance` installs it", err)
	}
	if err := f.addFile("/bin/"+program, file); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "ldd", file).Output()
	if err != nil {
		return fmt.Errorf("list the libraries of %s: %w", file, err)
	}
	for word := range strings.FieldsSeq(string(out)) {
		if strings.HasPrefix(word, "/") {
			if err := f.addFile(word, word); err != nil {
				return err
			}
		}
	}
	return nil
}

// open returns the file system as a tar archive.
func (f *fileSystem) open() (io.ReadCloser, error) {
	reader, writer := io.Pipe()
	go func() { writer.CloseWithError(f.write(writer)) }()
	return reader, nil
}

func (f *fileSystem) write(w io.Writer) error {
	archive := tar.NewWriter(w)
	for _, e := range f.entries {
		if err := archive.WriteHeader(&e.Header); err != nil {
			return err
		}
		if e.file == "" {
			continue
		}
		if err := copyFile(archive, e.file); err != nil {
			return err
		}
	}
	return archive.Close()
}

func copyFile(to io.Writer, name string) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = io.Copy(to, file)
	return err
}
