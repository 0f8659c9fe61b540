package testnet

import (
	"encoding/base64"
	"fmt"
	"os"

	"github.com/google/renameio/v2"
	"go.yaml.in/yaml/v4"
)

// writeKubeconfig replaces a kubeconfig by rename. It names no other files than the
// credentials do: with a certificate it can be mounted anywhere.
func (a *APIServer) writeKubeconfig(path string, credentials map[string]any) error {
	cluster, err := fileContents(map[string]string{"certificate-authority-data": a.CAFile()})
	if err != nil {
		return err
	}
	cluster["server"] = a.URL()
	const name = "testnet"
	data, err := yaml.Marshal(map[string]any{
		"apiVersion":      "v1",
		"kind":            "Config",
		"clusters":        []any{map[string]any{"name": name, "cluster": cluster}},
		"users":           []any{map[string]any{"name": name, "user": credentials}},
		"contexts":        []any{map[string]any{"name": name, "context": map[string]any{"cluster": name, "user": name}}},
		"current-context": name,
	})
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	if err := renameio.WriteFile(path, data, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// fileContents reads files into fields with their base64 encoding.
func fileContents(files map[string]string) (map[string]any, error) {
	contents := make(map[string]any)
	for field, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		contents[field] = base64.StdEncoding.EncodeToString(data)
	}
	return contents, nil
}
