// Command image writes weft's container image: one for several architectures, as an archive
// that container engines import. It needs no container engine, and runs nothing of what it
// packs. Of the same input it writes the same bytes.
//
// The image has two layers. The lower one holds the programs that weftd runs, nft and iptables,
// with their libraries, of Debian's packages; it changes only with these. The upper one holds
// weft's programs. There is no shell.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stderr))
}

// build is what an image is made of.
type build struct {
	name          name.Tag
	version       string
	revision      string
	created       time.Time
	programs      string // has a folder of weft's programs for each architecture
	debian        string // has a folder of .deb files for each architecture
	documents     []string
	architectures []string
}

func run(args []string, stderr io.Writer) int {
	var b build
	var reference, output string
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprintln(stderr, "Usage: image [flags] ARCHITECTURE...")
		flags.PrintDefaults()
	}
	flags.StringVar(&output, "output", "", "write the archive to this `file`")
	flags.StringVar(&reference, "name", "", "name the image `NAME:TAG`")
	flags.StringVar(&b.version, "version", "", "weft's `version`")
	flags.StringVar(&b.revision, "revision", "", "the `commit` that weft is built from")
	flags.StringVar(&b.programs, "programs", "", "the `folder` that has weft's programs, in a folder for each architecture")
	flags.StringVar(&b.debian, "debian", "", "the `folder` that has Debian's packages, in a folder for each architecture")
	flags.Func("document", "a `file` for /usr/share/doc/weft, such as a licence; repeatable", func(name string) error {
		b.documents = append(b.documents, name)
		return nil
	})
	flags.Func("created", "the image's date, in `seconds` since 1970", func(text string) error {
		seconds, err := strconv.ParseInt(text, 10, 64)
		b.created = time.Unix(seconds, 0).UTC()
		return err
	})
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	b.architectures = flags.Args()
	if err := b.complete(reference, output); err != nil {
		fmt.Fprintln(stderr, "image:", err)
		return 2
	}
	if err := b.write(output); err != nil {
		fmt.Fprintln(stderr, "image:", err)
		return 1
	}
	return 0
}

// complete checks the options, and parses the image's name.
func (b *build) complete(reference, output string) (err error) {
	if b.name, err = name.NewTag(reference, name.StrictValidation); err != nil {
		return fmt.Errorf("-name %q: %w; write NAME:TAG", reference, err)
	}
	switch {
	case output == "", b.version == "", b.programs == "", b.debian == "", b.created.IsZero(), len(b.architectures) == 0:
		return errors.New("an option or the architecture is missing; `make image` gives them all")
	}
	for _, a := range b.architectures {
		if _, known := machines[a]; !known {
			return fmt.Errorf("unknown architecture %q; write amd64 or arm64", a)
		}
	}
	return nil
}

// write makes the image and its archive.
func (b *build) write(output string) error {
	index, err := b.index()
	if err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "weft-image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	if err := writeLayout(filepath.Join(folder, "layout"), b.name, index); err != nil {
		return fmt.Errorf("write the image: %w", err)
	}
	if err := archive(output, filepath.Join(folder, "layout"), b.created); err != nil {
		return fmt.Errorf("write the archive: %w", err)
	}
	return nil
}
