package owned

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWhoCanChangeAFile: a file that others can change, by itself, by a folder above it or by a
// link on the way, is refused with the remedy; one that only root can change is not.
func TestWhoCanChangeAFile(t *testing.T) {
	const nobody = 65534
	for _, tt := range []struct {
		name    string
		prepare func(dir string) error // which has etc/weft/file
		root    bool                   // can prepare it
		want    string                 // "": nothing; DIR is the folder
	}{
		{"as it must be", func(string) error { return nil }, false, ""},
		{"everybody reads it", func(dir string) error { return os.Chmod(dir+"/etc/weft/file", 0o644) }, false, ""},
		{"its group writes it", func(dir string) error { return os.Chmod(dir+"/etc/weft/file", 0o660) }, false, ""},
		{"everybody writes it", func(dir string) error { return os.Chmod(dir+"/etc/weft/file", 0o666) }, false,
			"DIR/etc/weft/file: every user can write to it (mode 0666); chmod o-w DIR/etc/weft/file"},
		{"everybody writes to its folder", func(dir string) error { return os.Chmod(dir+"/etc/weft", 0o777) }, false,
			"DIR/etc/weft: every user can write to this folder (mode 0777), and so replace its files; chmod o-w DIR/etc/weft"},
		{"everybody writes to a folder above", func(dir string) error { return os.Chmod(dir+"/etc", 0o777) }, false, "DIR/etc: every user can write to this folder"},
		{"its folder is like /tmp", func(dir string) error { return os.Chmod(dir+"/etc/weft", 0o777|os.ModeSticky) }, false, ""},
		{"it is another user's", func(dir string) error { return os.Chown(dir+"/etc/weft/file", nobody, 0) }, true,
			"DIR/etc/weft/file: it belongs to another user (65534), who can change it; chown 0 DIR/etc/weft/file"},
		{"its folder is another user's", func(dir string) error { return os.Chown(dir+"/etc/weft", nobody, 0) }, true, "DIR/etc/weft: it belongs to another user"},
		{"a folder above is another user's", func(dir string) error { return os.Chown(dir+"/etc", nobody, 0) }, true, "DIR/etc: it belongs to another user"},
		{"there is none", func(dir string) error { return os.Remove(dir + "/etc/weft/file") }, false, ""},
		{"there is no folder", func(dir string) error { return os.RemoveAll(dir + "/etc") }, false, ""},
		{"a link leads to one that everybody writes", func(dir string) error {
			return errors.Join(os.Rename(dir+"/etc/weft/file", dir+"/etc/other"), os.Chmod(dir+"/etc/other", 0o666), os.Symlink("../other", dir+"/etc/weft/file"))
		}, false, "DIR/etc/other: every user can write to it"},
		{"a link leads into a folder that everybody writes to", func(dir string) error {
			return errors.Join(os.Mkdir(dir+"/open", 0o700), os.Chmod(dir+"/open", 0o777), os.Rename(dir+"/etc/weft/file", dir+"/open/file"), os.Symlink(dir+"/open/file", dir+"/etc/weft/file"))
		}, false, "DIR/open: every user can write to this folder"},
		{"a folder is a link of another user's", func(dir string) error {
			return errors.Join(os.Rename(dir+"/etc/weft", dir+"/etc/real"), os.Symlink("real", dir+"/etc/weft"), os.Lchown(dir+"/etc/weft", nobody, 0))
		}, true, "DIR/etc/weft: it belongs to another user"},
		{"links of root's", func(dir string) error {
			return errors.Join(os.Rename(dir+"/etc/weft", dir+"/etc/real"), os.Symlink("real", dir+"/etc/weft"), os.Rename(dir+"/etc/real/file", dir+"/f"), os.Symlink(dir+"/f", dir+"/etc/real/file"))
		}, false, ""},
		{"links in a circle", func(dir string) error {
			return errors.Join(os.Remove(dir+"/etc/weft/file"), os.Symlink("file", dir+"/etc/weft/file"))
		}, false, "follow DIR/etc/weft/file: too many levels of symbolic links"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.root && os.Geteuid() != 0 {
				t.Skip("only root can give a file away")
			}
			dir := t.TempDir()
			path := filepath.Join(dir, "etc/weft/file")
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o600), tt.prepare(dir)); err != nil {
				t.Fatal(err)
			}
			err := Check(path)
			if want := strings.ReplaceAll(tt.want, "DIR", dir); err == nil != (want == "") || err != nil && !strings.HasPrefix(err.Error(), want) {
				t.Errorf("%v; want %s", err, want)
			}
		})
	}
}

// TestWhoCanReadAFile: one that every user can read is reported, unless a folder keeps them out.
func TestWhoCanReadAFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // the test's own
		t.Fatal(err)
	}
	path := filepath.Join(dir, "password")
	for _, tt := range []struct {
		file, folder os.FileMode
		exposed      bool
	}{{0o600, 0o755, false}, {0o640, 0o755, false}, {0o644, 0o755, true}, {0o644, 0o700, false}} {
		if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chmod(path, tt.file), os.Chmod(dir, tt.folder)); err != nil {
			t.Fatal(err)
		}
		if err := Exposed(path); err != nil != tt.exposed {
			t.Errorf("mode %o in a folder of mode %o: %v", tt.file, tt.folder, err)
		}
	}
	if err := Exposed(filepath.Join(dir, "none")); err != nil {
		t.Error(err)
	}
}
