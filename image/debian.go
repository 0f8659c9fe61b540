package main

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// wanted are the files of Debian's packages that weftd needs, as patterns. selectFiles adds their
// libraries, the targets of links, and licences.
var wanted = []string{
	"usr/sbin/nft",
	"etc/protocols", // without it, nft knows no "meta l4proto tcp"
	// weftd runs these for host.acceptForward, and to warn of filters that drop pods' packets.
	"usr/sbin/iptables-nft", "usr/sbin/iptables-nft-save",
	"usr/sbin/ip6tables-nft", "usr/sbin/ip6tables-nft-save",
	"usr/sbin/iptables-legacy", "usr/sbin/iptables-legacy-save",
	"usr/sbin/ip6tables-legacy", "usr/sbin/ip6tables-legacy-save",
	// Their extensions, all that rules of the host may have.
	"usr/lib/*/xtables/libxt_*.so", "usr/lib/*/xtables/libipt_*.so", "usr/lib/*/xtables/libip6t_*.so",
	// Scanners read the distribution from it.
	"etc/os-release",
}

// machines are the architectures, by Go's and Debian's name.
var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// tree is a set of files by their path, which has no slash in front.
type tree map[string]*file

type file struct {
	mode    int64
	folder  bool
	link    string // the target of a symbolic link, else ""
	content []byte
	changed time.Time
	owner   *debian // nil if it is of no package
}

// debian is a package of Debian's.
type debian struct {
	name    string
	control []byte // its fields, as in dpkg's list of packages
}

// readPackages unpacks all packages in a folder in memory, some 40 MB.
func readPackages(folder string) (tree, error) {
	names, err := filepath.Glob(filepath.Join(folder, "*.deb"))
	if err != nil {
		return nil, err
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("no packages in %s; `make image` fetches them", folder)
	}
	all := tree{}
	for _, name := range names {
		if err := all.unpack(name); err != nil {
			return nil, fmt.Errorf("unpack %s: %w", name, err)
		}
	}
	return all, nil
}

// unpack adds the files of a package. Folders have none of their own: see layer.
func (t tree) unpack(name string) error {
	control, err := output("dpkg-deb", "--field", name)
	if err != nil {
		return err
	}
	content, err := output("dpkg-deb", "--fsys-tarfile", name)
	if err != nil {
		return err
	}
	of, _, _ := strings.Cut(filepath.Base(name), "_")
	owner := &debian{name: of, control: control}
	for archive := tar.NewReader(bytes.NewReader(content)); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		f := &file{mode: header.Mode & 0o777, changed: header.ModTime, owner: owner}
		switch header.Typeflag {
		case tar.TypeReg:
			if f.content, err = io.ReadAll(archive); err != nil {
				return err
			}
		case tar.TypeSymlink:
			f.link = header.Linkname
		default:
			continue
		}
		t[path.Clean(header.Name)] = f
	}
}

// output runs a program, and returns what it prints.
func output(program string, args ...string) ([]byte, error) {
	out, err := exec.Command(program, args...).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil, fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, bytes.TrimSpace(exit.Stderr))
	}
	return out, err
}

// selection is the part of some packages that the image needs.
type selection struct {
	from      tree
	libraries map[string]string // their paths by their name
	machine   elf.Machine
	files     tree
}

// selectFiles returns the files that match a pattern, and all that they need.
func selectFiles(from tree, patterns []string, machine elf.Machine) (tree, error) {
	s := selection{from: from, libraries: map[string]string{}, machine: machine, files: tree{}}
	for name := range from {
		// No library's name is there twice: iptables' extensions alone are in a folder below.
		if strings.Contains(path.Base(name), ".so") {
			s.libraries[path.Base(name)] = name
		}
	}
	for _, pattern := range patterns {
		found := false
		for name := range from {
			if matches, err := path.Match(pattern, name); err != nil {
				return nil, err
			} else if !matches {
				continue
			}
			found = true
			if err := s.add(name); err != nil {
				return nil, err
			}
		}
		if !found {
			return nil, fmt.Errorf("no package has a file %s; add its package to scripts/image-packages and run make image-lock", pattern)
		}
	}
	if err := s.addLicences(); err != nil {
		return nil, err
	}
	return s.files, nil
}

// add selects a file and what it needs.
func (s *selection) add(name string) error {
	if s.files[name] != nil {
		return nil
	}
	f := s.from[name]
	if f == nil {
		return fmt.Errorf("no package has the file %s", name)
	}
	s.files[name] = f
	switch {
	case path.IsAbs(f.link):
		return s.add(strings.TrimPrefix(path.Clean(f.link), "/"))
	case f.link != "":
		return s.add(path.Join(path.Dir(name), f.link))
	case !bytes.HasPrefix(f.content, []byte(elf.ELFMAG)):
		return nil
	}
	needs, err := s.needs(f.content)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	for _, need := range needs {
		if err := s.add(need); err != nil {
			return fmt.Errorf("%s needs %s: %w", name, need, err)
		}
	}
	return nil
}

// needs returns the paths of the dynamic linker and the libraries that a program or a library names.
func (s *selection) needs(content []byte) (all []string, err error) {
	f, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	if f.Machine != s.machine {
		return nil, fmt.Errorf("it is for %v, not for %v", f.Machine, s.machine)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			linker, err := io.ReadAll(p.Open())
			if err != nil {
				return nil, err
			}
			all = append(all, strings.Trim(string(linker), "/\x00"))
		}
	}
	libraries, err := f.ImportedLibraries()
	if err != nil {
		return nil, err
	}
	for _, library := range libraries {
		where, known := s.libraries[library]
		if !known {
			return nil, fmt.Errorf("no package has the library %s", library)
		}
		all = append(all, where)
	}
	return all, nil
}

// licenceText is where copyright files say that the licence's text is.
var licenceText = regexp.MustCompile(`/usr/share/common-licenses/[A-Za-z0-9.-]*[A-Za-z0-9]`)

// addLicences adds the copyright files of the packages that files are selected of, the licences
// that these refer to, and the packages' fields, where scanners look for them in images without dpkg.
func (s *selection) addLicences() error {
	owners := map[string]*file{}
	for _, f := range s.files {
		owners[f.owner.name] = f
	}
	for owner, f := range owners {
		copyright := path.Join("usr/share/doc", owner, "copyright")
		if err := s.add(copyright); err != nil {
			return err
		}
		for _, text := range licenceText.FindAll(s.from[copyright].content, -1) {
			if err := s.add(strings.TrimPrefix(string(text), "/")); err != nil {
				return fmt.Errorf("%s refers to a licence: %w", copyright, err)
			}
		}
		s.files[path.Join("var/lib/dpkg/status.d", owner)] = &file{mode: 0o644, content: f.owner.control, changed: f.changed, owner: f.owner}
	}
	return nil
}

// newest is the time of the file that was changed last.
func (t tree) newest() (last time.Time) {
	for _, f := range t {
		if f.changed.After(last) {
			last = f.changed
		}
	}
	return last
}

// paths are sorted.
func (t tree) paths() []string {
	all := make([]string, 0, len(t))
	for name := range t {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}
