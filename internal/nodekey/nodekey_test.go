package nodekey_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"weft/internal/nodekey"
	"weft/peer"
)

// generate makes a key in a folder of its own.
func generate(t testing.TB) (path string, fingerprint peer.Fingerprint) {
	t.Helper()
	path, fingerprint, err := nodekey.Generate(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return path, fingerprint
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// put writes a file that only its owner can read.
func put(t testing.TB, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func fingerprintOf(key ed25519.PrivateKey) peer.Fingerprint {
	return nodekey.FingerprintOf(key.Public().(ed25519.PublicKey))
}

func TestAKeyIsReadAsItWasGenerated(t *testing.T) {
	path, fingerprint := generate(t)
	if filepath.Base(path) != nodekey.FileName {
		t.Errorf("written to %s", path)
	}
	key, err := nodekey.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := fingerprintOf(key); got != fingerprint {
		t.Errorf("the fingerprint is %s; Generate said %s", got, fingerprint)
	}
	if other, _ := generate(t); bytes.Equal(read(t, other), read(t, path)) {
		t.Error("two keys are the same")
	}
}

func TestOnlyTheOwnerCanReadAKey(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	path, _ := generate(t)
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Fatalf("%v, %v; want one file", entries, err)
	}
	if info, err := entries[0].Info(); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
}

func TestAKeyThatIsThereStays(t *testing.T) {
	path, _ := generate(t)
	dir := filepath.Dir(path)
	before := read(t, path)
	if again, _, err := nodekey.Generate(dir); !errors.Is(err, fs.ErrExist) || again != path {
		t.Errorf("%s: %v; want an error that wraps %v", again, err, fs.ErrExist)
	}
	if after := read(t, path); !bytes.Equal(before, after) {
		t.Error("the key has changed")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v; want one file", entries, err)
	}
}

func TestALinkInTheKeysPlaceIsNotFollowed(t *testing.T) {
	dir := t.TempDir()
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	if err := os.Symlink(elsewhere, filepath.Join(dir, nodekey.FileName)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := nodekey.Generate(dir); !errors.Is(err, fs.ErrExist) {
		t.Error(err)
	}
	if _, err := os.Lstat(elsewhere); err == nil {
		t.Error("a key was written where the link leads")
	}
}

func TestAFolderThatIsNotThereIsSaid(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "etc/weft")
	want := fmt.Sprintf("write the key: there is no folder %s; make it with: mkdir -p %s", dir, dir)
	if _, _, err := nodekey.Generate(dir); err == nil || err.Error() != want {
		t.Errorf("%v; want %s", err, want)
	}
}

// It is the SHA-256 of the public key as certificates hold it.
func TestFingerprintIsOfThePublicKeyInfo(t *testing.T) {
	path, fingerprint := generate(t)
	key, err := nodekey.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	// RFC 8410 §10.1: all Ed25519 keys begin with these bytes.
	spki, err := hex.DecodeString("302a300506032b6570032100")
	if err != nil {
		t.Fatal(err)
	}
	spki = append(spki, key.Public().(ed25519.PublicKey)...)
	if want := peer.Fingerprint(sha256.Sum256(spki)); fingerprint != want {
		t.Errorf("%s; want %s", fingerprint, want)
	}
}

// written is a PKCS #8 file of a key of some kind.
func written(t testing.TB, key crypto.PrivateKey, err error) []byte {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func TestWhatIsNoKeyIsRefusedWithTheRemedy(t *testing.T) {
	path, _ := generate(t)
	good := read(t, path)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	ofRSA := written(t, rsaKey, err)
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ofEC := written(t, ecKey, err)

	const another = "; remove it, and make one with: weft keygen --out DIR"
	const noKey = `DIR/node.key: holds no key (PEM block "PRIVATE KEY")` + another
	for _, tt := range []struct {
		name string
		text []byte
		want string // DIR is the folder; its end may be left out
	}{
		{"an empty file", nil, noKey},
		{"text", []byte("Correct horse battery staple.\n"), noKey},
		{"bytes that are no text", bytes.Repeat([]byte{0xff, 0}, 1<<10), noKey},
		{"the first half of a key", good[:len(good)/2], noKey},
		{"a certificate", bytes.ReplaceAll(good, []byte("PRIVATE KEY"), []byte("CERTIFICATE")), noKey},
		{"an encrypted key", bytes.ReplaceAll(good, []byte("PRIVATE KEY"), []byte("ENCRYPTED PRIVATE KEY")), noKey},
		{"a key behind too much else", append(bytes.Repeat([]byte("\n"), 1<<20), good...), noKey},
		{"a block that holds no key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("key")}), "DIR/node.key: the key cannot be read: "},
		{"an RSA key", ofRSA, "DIR/node.key: the key is not an Ed25519 key" + another},
		{"an EC key", ofEC, "DIR/node.key: the key is not an Ed25519 key" + another},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), nodekey.FileName)
			put(t, path, tt.text)
			dir := strings.NewReplacer("DIR", filepath.Dir(path))
			key, err := nodekey.Load(path)
			if err == nil || key != nil || !strings.HasPrefix(err.Error(), dir.Replace(tt.want)) || !strings.HasSuffix(err.Error(), dir.Replace(another)) {
				t.Errorf("%v; want %s", err, dir.Replace(tt.want))
			}
		})
	}
}

// Others could know its key, or it is not a regular file.
func TestUnsafeKeyFileIsRefused(t *testing.T) {
	mode := func(mode fs.FileMode) func(path string) error {
		return func(path string) error { return os.Chmod(path, mode) }
	}
	inPlace := func(other func(path string) error) func(path string) error {
		return func(path string) error { return errors.Join(os.Remove(path), other(path)) }
	}
	const (
		open     = "PATH: others may read or write it (mode MODE), so they may know the key; make a new one, or if they have not read it: chmod 600 PATH"
		noFile   = "PATH: not a regular file; set the configuration's key keyFile to the node's key"
		noKey    = "PATH: there is no key; make one with: weft keygen --out DIR"
		nobody   = 65534
		stranger = "PATH: it belongs to another user (65534), so they may know the key; make a new one, or if they have not read it: chown 0 PATH"
	)
	for _, tt := range []struct {
		name    string
		prepare func(path string) error
		root    bool // can prepare it
		want    string
	}{
		{name: "the group may read it", prepare: mode(0o640), want: strings.Replace(open, "MODE", "0640", 1)},
		{name: "everybody may read it", prepare: mode(0o604), want: strings.Replace(open, "MODE", "0604", 1)},
		{name: "everybody may write it", prepare: mode(0o602), want: strings.Replace(open, "MODE", "0602", 1)},
		{name: "it is another user's", prepare: func(path string) error { return os.Chown(path, nobody, -1) }, root: true, want: stranger},
		{name: "it is missing", prepare: os.Remove, want: noKey},
		{name: "its folder is missing", prepare: func(path string) error { return os.RemoveAll(filepath.Dir(path)) }, want: noKey},
		{name: "it is a link to nowhere", prepare: inPlace(func(path string) error { return os.Symlink("nowhere", path) }), want: noKey},
		{name: "it is a folder", prepare: inPlace(func(path string) error { return os.Mkdir(path, 0o700) }), want: noFile},
		{name: "it is a named pipe", prepare: inPlace(func(path string) error { return syscall.Mkfifo(path, 0o600) }), want: noFile},
		{name: "it is a device", prepare: inPlace(func(path string) error { return os.Symlink("/dev/zero", path) }), want: noFile},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.root && os.Geteuid() != 0 {
				t.Skip("only root can give a file away")
			}
			path, _ := generate(t)
			if err := tt.prepare(path); err != nil {
				t.Fatal(err)
			}
			want := strings.NewReplacer("PATH", path, "DIR", filepath.Dir(path)).Replace(tt.want)
			if key, err := nodekey.Load(path); err == nil || key != nil || err.Error() != want {
				t.Errorf("%v; want %s", err, want)
			}
		})
	}
}

func TestKeyFileMayBeALink(t *testing.T) {
	path, fingerprint := generate(t)
	link := filepath.Join(t.TempDir(), "identity")
	if _, err := nodekey.Load(link); err == nil || !strings.HasSuffix(err.Error(),
		"; make one with: weft keygen --out "+filepath.Dir(link)+", which writes node.key; rename it to identity") {
		t.Error(err)
	}
	if err := errors.Join(os.Chmod(path, 0o400), os.Symlink(path, link)); err != nil {
		t.Fatal(err)
	}
	if key, err := nodekey.Load(link); err != nil || fingerprintOf(key) != fingerprint {
		t.Error(err)
	}
}

// FuzzLoad: a key file is either refused with a message that a person can read, or holds a
// key that is the same when it is written again.
func FuzzLoad(f *testing.F) {
	path, _ := generate(f)
	good := read(f, path)
	f.Add(good)
	f.Add(good[:len(good)-3])
	f.Add(append([]byte("-----BEGIN PRIVATE KEY-----\n"), good...))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\n\n-----END PRIVATE KEY-----\n"))
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	f.Add(written(f, ecKey, err))
	f.Fuzz(func(t *testing.T, text []byte) {
		put(t, path, text)
		key, err := nodekey.Load(path)
		if err != nil {
			if key != nil || !strings.HasPrefix(err.Error(), path+": ") || len(err.Error()) > 4<<10 {
				t.Errorf("%v with the message %q", key, err)
			}
			return
		}
		put(t, path, written(t, key, nil))
		if again, err := nodekey.Load(path); err != nil || !key.Equal(again) {
			t.Errorf("written again: %v", err)
		}
	})
}
