package testnet

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
)

// Image is what all containers on a Machine are made of, the sandboxes too: busybox, and a
// page in /www that shows the client's address. Without a command it sleeps
// for a day. No registry has it.
const Image = "localhost/weft-testnet:1"

// whoami is answered by /cgi-bin/whoami of busybox's httpd in /www.
const whoami = `#!/bin/sh
printf 'Content-Type: text/plain\r\n\r\n%s %s\n' "$(hostname)" "$REMOTE_ADDR"
`

// WriteImage writes Image as an archive in the format of `docker save`.
func WriteImage(path string) error {
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		return fmt.Errorf("find busybox, which must be static: %w", err)
	}
	var layer archive
	for _, dir := range []string{"bin", "etc", "tmp", "www", "www/cgi-bin"} {
		layer.add(tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}, nil)
	}
	layer.add(tar.Header{Name: "bin/busybox", Mode: 0o755}, busybox)
	for _, applet := range []string{"sh", "printf", "hostname", "httpd", "nc", "wget", "sleep", "ping", "ip", "cat"} {
		layer.add(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + applet, Linkname: "busybox"}, nil)
	}
	layer.add(tar.Header{Name: "www/cgi-bin/whoami", Mode: 0o755}, []byte(whoami))

	var saved archive
	content := layer.bytes()
	saved.add(tar.Header{Name: "layer.tar", Mode: 0o644}, content)
	saved.addJSON("config.json", map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"Env": []string{"PATH=/bin"}, "Entrypoint": []string{"sleep", "86400"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(content))}},
	})
	saved.addJSON("manifest.json", []any{map[string]any{
		"Config": "config.json", "RepoTags": []string{Image}, "Layers": []string{"layer.tar"},
	}})
	return os.WriteFile(path, saved.bytes(), 0o644)
}

// archive is a tar file in memory, where writing can't fail.
type archive struct {
	buffer bytes.Buffer
	writer *tar.Writer
}

func (a *archive) add(header tar.Header, content []byte) {
	if a.writer == nil {
		a.writer = tar.NewWriter(&a.buffer)
	}
	header.Size = int64(len(content))
	if err := a.writer.WriteHeader(&header); err != nil {
		panic(err)
	}
	if _, err := a.writer.Write(content); err != nil {
		panic(err)
	}
}

func (a *archive) addJSON(name string, content any) {
	data, err := json.Marshal(content)
	if err != nil {
		panic(err)
	}
	a.add(tar.Header{Name: name, Mode: 0o644}, data)
}

// bytes ends the archive.
func (a *archive) bytes() []byte {
	if err := a.writer.Close(); err != nil {
		panic(err)
	}
	return a.buffer.Bytes()
}
