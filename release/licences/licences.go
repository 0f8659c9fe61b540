// Package licences collects the licences of all code that Go programs are linked with.
package licences

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/google/licensecheck"
)

// allowed are licences, by their SPDX identifiers, that code linked with weft may have: none asks
// that weft be under the same.
var allowed = []string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT"}

// known is the part of a licence file, in percent, that must be text of known licences. The rest
// says whose code is under which.
const known = 80

// Module is code of one origin: a module, or Go's standard library.
type Module struct {
	Path     string // "std" is the standard library
	Version  string
	Licences []string // sorted SPDX identifiers
	Files    []File   // its licence files, notices and grants of patents
}

// File is a file of a module.
type File struct {
	Name string // its path in the module
	Text string
}

// Collect returns the modules that packages of the module in a folder are linked with, on Linux on
// some architectures. It fails for a module without a licence, with one that is not allowed,
// or with one that it does not know.
func Collect(ctx context.Context, folder string, architectures []string, packages ...string) ([]Module, error) {
	found := map[string]*Module{}
	for _, architecture := range architectures {
		linked, err := list(ctx, folder, architecture, packages)
		if err != nil {
			return nil, err
		}
		for _, p := range linked {
			if p.Module != nil && p.Module.Main {
				continue
			}
			if p.Standard {
				p.Module = &module{Path: "std", Version: runtime.Version(), Dir: p.Root}
				p.Dir = p.Root
			}
			if err := add(found, p); err != nil {
				return nil, err
			}
		}
	}
	all := make([]Module, 0, len(found))
	var errs []error
	for _, m := range found {
		errs = append(errs, m.identify())
		all = append(all, *m)
	}
	slices.SortFunc(all, func(a, b Module) int { return strings.Compare(a.Path, b.Path) })
	return all, errors.Join(errs...)
}

// linked is a package as `go list` prints it.
type linked struct {
	Dir      string
	Root     string // of a standard package: where Go is installed
	Standard bool   // of Go itself, with this program's version
	Module   *module
}

type module struct {
	Path, Version, Dir string
	Main               bool
	Replace            *struct{ Path, Version string }
}

func list(ctx context.Context, folder, architecture string, packages []string) (all []linked, err error) {
	cmd := exec.CommandContext(ctx, "go", append([]string{"list", "-deps", "-json=Dir,Root,Standard,Module", "--"}, packages...)...)
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+architecture, "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("list what %s is linked with: %w: %s", strings.Join(packages, " "), err, bytes.TrimSpace(stderr.Bytes()))
	}
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p linked
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
}

// add takes the licence files in a package's folder and in those above it, up to its module's.
func add(found map[string]*Module, p linked) error {
	path, version, top := p.Module.Path, p.Module.Version, p.Module.Dir
	if r := p.Module.Replace; r != nil && r.Version != "" { // else it is a folder
		path, version = r.Path, r.Version
	}
	m := found[path]
	if m == nil {
		m = &Module{Path: path, Version: version}
		found[path] = m
	}
	for folder := p.Dir; ; folder = filepath.Dir(folder) {
		if err := m.addFiles(top, folder); err != nil {
			return err
		}
		if folder == top {
			return nil
		}
		if len(folder) < len(top) {
			return fmt.Errorf("package %s is outside of its module %s", p.Dir, top)
		}
	}
}

var (
	fileName    = regexp.MustCompile(`(?i)^(licen[cs]e|copying|unlicen[cs]e|notice|patents)([.-].*)?$`)
	licenceName = regexp.MustCompile(`(?i)^(licen[cs]e|copying|unlicen[cs]e)`)
)

func (m *Module) addFiles(top, folder string) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !entry.Type().IsRegular() || !fileName.MatchString(entry.Name()) || filepath.Ext(entry.Name()) == ".go" {
			continue
		}
		name, err := filepath.Rel(top, filepath.Join(folder, entry.Name()))
		if err != nil {
			return err
		}
		if slices.ContainsFunc(m.Files, func(f File) bool { return f.Name == name }) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(folder, entry.Name()))
		if err != nil {
			return err
		}
		m.Files = append(m.Files, File{Name: name, Text: string(text)})
	}
	return nil
}

// identify finds out which licences the module's files are.
func (m *Module) identify() error {
	slices.SortFunc(m.Files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	for _, f := range m.Files {
		if !licenceName.MatchString(filepath.Base(f.Name)) {
			continue
		}
		scan := licensecheck.Scan([]byte(f.Text))
		if scan.Percent < known {
			return fmt.Errorf("%s %s: %s is no known licence; read it, and use another module if weft may not be linked with it", m.Path, m.Version, f.Name)
		}
		for _, match := range scan.Match {
			if !slices.Contains(allowed, match.ID) {
				return fmt.Errorf("%s %s: its licence %s is not among those allowed, %s; use another module", m.Path, m.Version, match.ID, strings.Join(allowed, ", "))
			}
			m.Licences = append(m.Licences, match.ID)
		}
	}
	slices.Sort(m.Licences)
	m.Licences = slices.Compact(m.Licences)
	if len(m.Licences) == 0 {
		return fmt.Errorf("%s %s has no licence file; use another module", m.Path, m.Version)
	}
	return nil
}

// Text is one file with all licences: first the modules, then each text once.
func Text(modules []Module) string {
	var out strings.Builder
	out.WriteString("weft's programs are linked with the following modules. Their licences follow.\n\n")
	using := map[string][]string{} // the files that have a text
	var texts []string
	for _, m := range modules {
		fmt.Fprintf(&out, "%s %s: %s\n", m.Path, m.Version, strings.Join(m.Licences, ", "))
		for _, f := range m.Files {
			if using[f.Text] == nil {
				texts = append(texts, f.Text)
			}
			using[f.Text] = append(using[f.Text], m.Path+": "+f.Name)
		}
	}
	for _, text := range texts {
		fmt.Fprintf(&out, "\n%[1]s\n%[2]s\n%[1]s\n\n%[3]s\n", strings.Repeat("=", 80), strings.Join(using[text], "\n"), strings.TrimSpace(text))
	}
	return out.String()
}
