package conflist

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/version"

	"weft/cniplugin"
	"weft/internal/config"
)

// versionTimeout bounds how long a plugin is waited for that is asked for its versions,
// which takes a few milliseconds.
const versionTimeout = 2 * time.Second

// chained is a plugin to be called after weft-cni, with its entry in the conflist and the
// versions of the CNI specification that it speaks.
type chained struct {
	name     string
	entry    json.RawMessage
	versions []string // nil: not known
	foreign  bool     // another program made the entry
}

// chain looks which of the plugins behind weft-cni are there. A plugin that is missing
// must not keep pods from starting that don't need it: weftd goes without it, and logs what
// pods lack.
type chain struct {
	cni config.CNI
	log *slog.Logger

	// answered is what plugins have said, and of which file. While the file is the same,
	// it is not asked again.
	answered map[string]answer

	// reported is why a plugin is not used, as last logged.
	reported map[string]string

	// noted is what the log has said of foreign entries.
	noted map[string]bool
}

type answer struct {
	file     os.FileInfo
	versions []string
}

func newChain(c config.CNI, log *slog.Logger) *chain {
	return &chain{cni: c, log: log, answered: map[string]answer{}, reported: map[string]string{}, noted: map[string]bool{}}
}

// wanted returns the plugins that the configuration names, in their order.
func (c *chain) wanted() []chained {
	var wanted []chained
	for _, name := range c.cni.Chain {
		wanted = append(wanted, chained{name: name, entry: pluginEntry(name)})
	}
	for _, e := range c.cni.Extra {
		wanted = append(wanted, chained{name: e.Type, entry: json.RawMessage(e.JSON)})
	}
	return wanted
}

// look returns the plugins that can be called together, in their order. Those of foreign
// entries come last, and stay whether or not they can be called: they are not weftd's to
// remove.
func (c *chain) look(ctx context.Context, foreign []foreignEntry) []chained {
	var usable []chained
	left := cniVersions
	for _, p := range c.wanted() {
		versions, err := c.spoken(ctx, p.name, left)
		if ctx.Err() != nil {
			return nil
		}
		c.report(p.name, err)
		if err == nil {
			left, p.versions = versions, versions
			usable = append(usable, p)
		}
	}
	for _, f := range foreign {
		p := chained{name: f.name, entry: f.entry, foreign: true}
		versions, err := c.spoken(ctx, f.name, left)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			left, p.versions = versions, versions
		} else {
			c.note(slog.LevelWarn, "foreign CNI plugin may not work", f.name, err)
		}
		usable = append(usable, p)
	}
	return usable
}

// Unusable is a plugin that the configuration names and that can't be called.
type Unusable struct {
	Plugin string
	Lack   string // what pods do not get without it
	Err    error  // why
}

// LookForUnusable returns the plugins of cni.chain and cni.extra that can't be called now. It
// asks each for its versions.
func LookForUnusable(ctx context.Context, c config.CNI) (unusable []Unusable) {
	chain := newChain(c, slog.New(slog.DiscardHandler))
	left := cniVersions
	for _, p := range chain.wanted() {
		versions, err := chain.spoken(ctx, p.name, left)
		if err != nil {
			unusable = append(unusable, Unusable{p.name, lack(p.name), err})
			continue
		}
		left = versions
	}
	return unusable
}

// spoken returns which of the given versions a plugin speaks too.
func (c *chain) spoken(ctx context.Context, name string, left []string) ([]string, error) {
	versions, err := c.versions(ctx, name)
	if err != nil {
		return nil, err
	}
	versions = common(left, versions)
	if len(versions) == 0 || versions[0] > forOldRuntimes {
		return nil, fmt.Errorf("it supports no CNI version that the other plugins support (%s)", strings.Join(left, ", "))
	}
	return versions, nil
}

// admit returns the foreign entries that stay, and logs what becomes of each.
func (c *chain) admit(foreign []foreignEntry) []foreignEntry {
	var admitted []foreignEntry
	for _, f := range foreign {
		if f.refused != "" {
			c.note(slog.LevelWarn, "foreign CNI entry removed", f.name, errors.New(f.refused))
			continue
		}
		c.note(slog.LevelInfo, "foreign CNI entry kept", f.name, nil)
		admitted = append(admitted, f)
	}
	return admitted
}

// note logs something about a foreign plugin once.
func (c *chain) note(level slog.Level, message, plugin string, err error) {
	args := []any{"plugin", plugin, "conflist", config.ConflistName}
	if err != nil {
		args = append(args, "error", err)
	}
	if said := fmt.Sprint(message, args); !c.noted[said] {
		c.noted[said] = true
		c.log.Log(context.Background(), level, message, args...)
	}
}

// report logs that a plugin can't be used, or can be again, when that changes.
func (c *chain) report(name string, err error) {
	why := ""
	if err != nil {
		why = err.Error()
	}
	switch why {
	case c.reported[name]:
		return
	case "":
		c.log.Info("chained CNI plugin found", "plugin", name)
	default:
		c.log.Warn("chained CNI plugin not usable", "plugin", name, "error", err, "missing", lack(name),
			"remedy", "install it in "+c.cni.BinDir+" (Debian has it in the package containernetworking-plugins), or remove it from cni.chain or cni.extra")
	}
	c.reported[name] = why
}

// lack is what pods do not get without a plugin.
func lack(name string) string {
	switch name {
	case "portmap":
		return "hostPorts"
	case "bandwidth":
		return "bandwidth limits"
	case "tuning":
		return "sysctls and link settings by request (args)"
	}
	return "what " + name + " does"
}

// versions returns which versions of CNI a plugin speaks. It runs the plugin only if its
// file is not the one that has answered before.
func (c *chain) versions(ctx context.Context, name string) ([]string, error) {
	if err := cniplugin.CheckPluginName(name); err != nil {
		return nil, err
	}
	path := filepath.Join(c.cni.BinDir, name)
	file, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !file.Mode().IsRegular() || file.Mode()&0o111 == 0 {
		return nil, &fs.PathError{Op: "execute", Path: path, Err: fs.ErrPermission}
	}
	known, ok := c.answered[name]
	if ok && os.SameFile(known.file, file) && known.file.ModTime().Equal(file.ModTime()) && known.file.Size() == file.Size() {
		return known.versions, nil
	}
	versions, err := askVersions(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("ask %s for its CNI versions: %w", path, err)
	}
	c.answered[name] = answer{file, versions}
	return versions, nil
}

// askVersions executes the specification's command VERSION. What libcni has for it waits
// without end for a plugin that has left its output to a child.
func askVersions(ctx context.Context, path string) ([]string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, versionTimeout, errors.New("no answer in "+versionTimeout.String()))
	defer cancel()
	cmd := exec.CommandContext(ctx, path)
	cmd.Env = append(os.Environ(), "CNI_COMMAND=VERSION")
	cmd.Stdin = strings.NewReader(fmt.Sprintf(`{"cniVersion":%q}`, forOldRuntimes))
	// A timeout kills the plugin's children too, which would otherwise keep waiting.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.Output()
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, fmt.Errorf("%w: %s", err, bytes.TrimSpace(append(stdout, stderr.Bytes()...)))
	}
	info, err := (&version.PluginDecoder{}).Decode(stdout)
	if err != nil {
		return nil, err
	}
	return info.SupportedVersions(), nil
}
