// Package nodekey is a node's identity: an Ed25519 key (RFC 8032) in a file of its own, the
// fingerprint by which the other nodes know it, and TLS that shows the key.
package nodekey

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"weft/internal/newfile"
	"weft/peer"
)

// FileName is the name of the file that Generate writes.
const FileName = "node.key"

const blockType = "PRIVATE KEY" // PKCS #8 (RFC 7468 §10)

// FingerprintOf returns the SHA-256 of a public key as it stands in certificates
// (SubjectPublicKeyInfo, RFC 8410 §4). OpenSSL says the same:
//
//	openssl pkey -in node.key -pubout -outform DER | sha256sum
func FingerprintOf(key ed25519.PublicKey) peer.Fingerprint {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		panic(err) // only for other kinds of keys
	}
	return sha256.Sum256(der)
}

// Generate makes a key and writes it to a file in dir, which only its owner can read. A
// file that is there already stays as it is, and is an error that wraps fs.ErrExist.
func Generate(dir string) (path string, _ peer.Fingerprint, _ error) {
	path = filepath.Join(dir, FileName)
	fingerprint, err := generate(path)
	return path, fingerprint, err
}

func generate(path string) (peer.Fingerprint, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return peer.Fingerprint{}, fmt.Errorf("make a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return peer.Fingerprint{}, fmt.Errorf("encode the key: %w", err)
	}
	if err := newfile.Write(path, pem.EncodeToMemory(&pem.Block{Type: blockType, Bytes: der}), 0o600); err != nil {
		return peer.Fingerprint{}, fmt.Errorf("write the key: %w", err)
	}
	return FingerprintOf(public), nil
}

// Ensure returns the fingerprint of the key at path, and makes the key first if there is no file.
func Ensure(path string) (fingerprint peer.Fingerprint, made bool, err error) {
	fingerprint, err = generate(path)
	if !errors.Is(err, fs.ErrExist) {
		return fingerprint, err == nil, err
	}
	fingerprint, err = LoadFingerprint(path)
	return fingerprint, false, err
}

// LoadFingerprint is Load for those that only need to know which key it is.
func LoadFingerprint(path string) (peer.Fingerprint, error) {
	key, err := Load(path)
	if err != nil {
		return peer.Fingerprint{}, err
	}
	return FingerprintOf(key.Public().(ed25519.PublicKey)), nil
}

// Load reads a key that only its owner may read.
func Load(path string) (ed25519.PrivateKey, error) {
	// Without O_NONBLOCK, a named pipe would keep Load waiting for a writer.
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: there is no key; %s", path, remedy(path))
	}
	if err != nil {
		return nil, fmt.Errorf("read the node's key: %w; it must belong to the user that weftd runs as, with mode 0600", err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, fmt.Errorf("read the node's key: %w", err)
	}
	if err := checkFile(path, info); err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(file, maxSize))
	if err != nil {
		return nil, fmt.Errorf("read the node's key: %w", err)
	}
	return parse(path, text)
}

// maxSize is more bytes than a key file has: one of weft keygen has 119.
const maxSize = 16 << 10

// checkFile refuses a file that others than its owner and root may know.
func checkFile(path string, info fs.FileInfo) error {
	const wayOut = "so they may know the key; make a new one, or if they have not read it: "
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s: not a regular file; set the configuration's key keyFile to the node's key", path)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%s: others may read or write it (mode %04o), "+wayOut+"chmod 600 %s", path, mode, path)
	}
	self, owner := os.Geteuid(), int(info.Sys().(*syscall.Stat_t).Uid)
	if owner != self && owner != 0 {
		return fmt.Errorf("%s: it belongs to another user (%d), "+wayOut+"chown %d %s", path, owner, self, path)
	}
	return nil
}

func parse(path string, text []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != blockType {
		return nil, fmt.Errorf("%s: holds no key (PEM block %q); remove it, and %s", path, blockType, remedy(path))
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: the key cannot be read: %w; remove it, and %s", path, err, remedy(path))
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: the key is not an Ed25519 key; remove it, and %s", path, remedy(path))
	}
	return key, nil
}

// remedy is how to come to a key at path.
func remedy(path string) string {
	command := "make one with: weft keygen --out " + filepath.Dir(path)
	if name := filepath.Base(path); name != FileName {
		command += ", which writes " + FileName + "; rename it to " + name
	}
	return command
}
