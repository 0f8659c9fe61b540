// Command release writes files that accompany a release of weft: the licences of all modules that
// its programs are linked with, and lists of components (SBOM).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"weft/release/licences"
	"weft/release/sbom"
)

const usage = `Usage:
  release licences -output FILE
  release sbom -output FILE -name NAME -version VERSION -created SECONDS FILE...

The files of sbom are Go programs in folders that are named like an architecture (bin/image/amd64/weftd),
or images as archives in OCI's layout (*.tar).
`

// errUsage marks errors of how the program was called.
var errUsage = errors.New("release: called wrongly")

func main() {
	err := run(context.Background(), os.Args[1:])
	switch {
	case errors.Is(err, errUsage):
		fmt.Fprintf(os.Stderr, "%v\n%s", err, usage)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	output := flags.String("output", "", "")
	root := flags.String("root", "..", "") // weft's module
	product := sbom.Product{}
	flags.StringVar(&product.Name, "name", "", "")
	flags.StringVar(&product.Version, "version", "", "")
	flags.Func("created", "", func(text string) error {
		seconds, err := strconv.ParseInt(text, 10, 64)
		product.Created = time.Unix(seconds, 0)
		return err
	})
	if err := flags.Parse(args[1:]); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if *output == "" {
		return fmt.Errorf("%w: no -output", errUsage)
	}
	modules, err := collect(ctx, *root)
	if err != nil {
		return err
	}
	switch args[0] {
	case "licences":
		return os.WriteFile(*output, []byte(licences.Text(modules)), 0o644)
	case "sbom":
		product.Licences = func(path string) []string {
			for _, m := range modules {
				if m.Path == path {
					return m.Licences
				}
			}
			return nil
		}
		return writeSBOM(product, flags.Args(), *output)
	}
	return fmt.Errorf("%w: %q", errUsage, args[0])
}

// collect returns the modules that weft's programs are linked with, and those of the plugins in its image
// that are others, or have other versions.
func collect(ctx context.Context, root string) ([]licences.Module, error) {
	architectures := []string{"amd64", "arm64"}
	modules, err := licences.Collect(ctx, root, architectures, "./cmd/...")
	if err != nil {
		return nil, err
	}
	plugins, err := licences.Collect(ctx, filepath.Join(root, "image", "plugins"), architectures, "tool")
	if err != nil {
		return nil, err
	}
	for _, p := range plugins {
		if !slices.ContainsFunc(modules, func(m licences.Module) bool { return m.Path == p.Path && m.Version == p.Version }) {
			modules = append(modules, p)
		}
	}
	slices.SortStableFunc(modules, func(a, b licences.Module) int { return strings.Compare(a.Path, b.Path) })
	return modules, nil
}

func writeSBOM(product sbom.Product, files []string, output string) error {
	if product.Name == "" || product.Version == "" || product.Created.IsZero() || len(files) == 0 {
		return fmt.Errorf("%w: sbom needs -name, -version, -created and files", errUsage)
	}
	list := sbom.New(product)
	for _, name := range files {
		if strings.HasSuffix(name, ".tar") {
			if err := list.AddImage(name); err != nil {
				return err
			}
			continue
		}
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		architecture := path.Base(filepath.Dir(name))
		if err := list.AddProgram(filepath.Base(name), "linux/"+architecture, content); err != nil {
			return err
		}
	}
	out, err := os.Create(output)
	if err != nil {
		return err
	}
	return errors.Join(list.Write(out), out.Close())
}
