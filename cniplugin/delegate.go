package cniplugin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/types"
)

// delegate has the plugin do a command that the configuration names for giving out
// addresses, and returns what it prints. It gets this call's environment, and stdin as
// its configuration. (libcni's package invoke does the same and brings net/http along.)
func (c *config) delegate(ctx context.Context, command string, stdin []byte) ([]byte, error) {
	name := c.IPAM.Type
	path, err := findPlugin(name)
	if err != nil {
		return nil, err
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path)
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+command)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	// A child of it may keep its output open, and for longer than the runtime waits.
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		printed := &types.Error{}
		if json.Unmarshal(stdout.Bytes(), printed) == nil && printed.Msg != "" {
			return nil, fmt.Errorf("ipam plugin %s: %w", name, printed)
		}
		return nil, fmt.Errorf("ipam plugin %s: %s: %w: %s", name, command, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.Bytes(), nil
}

// maxPluginName is the length in bytes of the longest file name (NAME_MAX).
const maxPluginName = 255

// CheckPluginName refuses what is no plain file name: joined to a folder of plugins it would
// name a program elsewhere.
func CheckPluginName(name string) error {
	if name == "" || name == "." || name == ".." || len(name) > maxPluginName || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%.40q is not a plugin's name; write a file name of 1 to %d bytes, without folders", name, maxPluginName)
	}
	return nil
}

// findPlugin returns the path of a plugin: the first that is in one of the runtime's
// folders.
func findPlugin(name string) (string, error) {
	if err := CheckPluginName(name); err != nil {
		return "", invalid("ipam.type: %w", err)
	}
	for _, dir := range filepath.SplitList(os.Getenv("CNI_PATH")) {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", invalid("ipam.type: there is no plugin %s in %s", name, os.Getenv("CNI_PATH"))
}
