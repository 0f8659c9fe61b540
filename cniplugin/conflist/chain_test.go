package conflist

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/google/go-cmp/cmp"

	"weft/cniplugin"
	"weft/internal/config"
	"weft/internal/testnet"
)

// speaking is a plugin that knows nothing but its versions, and counts how often it is
// asked.
func speaking(versions ...string) string {
	list, _ := json.Marshal(versions)
	return fmt.Sprintf(`#!/bin/sh
[ "$CNI_COMMAND" = VERSION ] || exit 1
echo >>"$0.asked"
echo '{"cniVersion":"1.0.0","supportedVersions":%s}'
`, list)
}

// rig writes a conflist out of plugins that are shell scripts.
type rig struct {
	*Writer
	t   *testing.T
	log *bytes.Buffer
}

func newConflistRig(t *testing.T, plugins ...string) *rig {
	t.Helper()
	log := &bytes.Buffer{}
	c := config.Config{RunDir: "/r", StateDir: "/s", CNI: config.CNI{ConfDir: t.TempDir(), BinDir: t.TempDir(), Chain: plugins, Name: "weft"}}
	return &rig{New(c, slog.New(slog.NewTextHandler(log, nil))), t, log}
}

func (r *rig) plugin(name string) string { return filepath.Join(r.config.CNI.BinDir, name) }

func (r *rig) install(name, script string) {
	r.t.Helper()
	// No process that starts meanwhile may inherit the open file: the kernel executes no file
	// that is open for writing (ETXTBSY).
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(r.plugin(name), []byte(script), 0o755); err != nil {
		r.t.Fatal(err)
	}
}

// conflist writes it and returns it, and what weftd logs meanwhile.
func (r *rig) conflist() (list networkList, log string) {
	r.t.Helper()
	r.log.Reset()
	if err := r.Write(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	content, err := os.ReadFile(r.Path())
	if err != nil {
		r.t.Fatal(err)
	}
	if err := json.Unmarshal(content, &list); err != nil {
		r.t.Fatal(err)
	}
	return list, r.log.String()
}

// asked is how often the plugin has been asked for its versions.
func (r *rig) asked(name string) int {
	lines, _ := os.ReadFile(r.plugin(name + ".asked"))
	return bytes.Count(lines, []byte("\n"))
}

func types(list networkList) string {
	var names []string
	for _, entry := range list.Plugins {
		var p plugin
		_ = json.Unmarshal(entry, &p)
		names = append(names, p.Type)
	}
	return strings.Join(names, " ")
}

func expectWords(t *testing.T, log string, words ...string) {
	t.Helper()
	if lines := strings.Count(log, "\n"); lines != 1 {
		t.Errorf("%d lines are logged, want one:\n%s", lines, log)
	}
	for _, word := range words {
		if !strings.Contains(log, word) {
			t.Errorf("the log has no word of %q:\n%s", word, log)
		}
	}
}

// The conflist chains the plugins with what they need.
func TestConflistChainsPlugins(t *testing.T) {
	r := newConflistRig(t, "portmap", "bandwidth", "tuning", "firewall")
	for _, name := range r.config.CNI.Chain {
		r.install(name, speaking("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0", "1.2.0"))
	}
	list, log := r.conflist()
	want := networkList{CNIVersion: "1.0.0", CNIVersions: cniplugin.Versions.SupportedVersions(), Name: "weft", Plugins: []json.RawMessage{
		encode(plugin{Type: "weft-cni", RunDir: "/r", StateDir: "/s", Capabilities: map[string]bool{"ips": true, "mac": true}, Chained: r.config.CNI.Chain}),
		encode(plugin{Type: "portmap", SNAT: true, Capabilities: map[string]bool{"portMappings": true}}),
		encode(plugin{Type: "bandwidth", Capabilities: map[string]bool{"bandwidth": true}}),
		encode(plugin{Type: "tuning"}),
		encode(plugin{Type: "firewall"}),
	}}
	if diff := cmp.Diff(want, list, cmp.Comparer(func(a, b json.RawMessage) bool { return sameJSON(a, b) })); diff != "" {
		t.Errorf("the conflist (-want +got):\n%s", diff)
	}
	if log != "" {
		t.Errorf("all is there, and yet there is something to log:\n%s", log)
	}
}

// The conflist offers the versions that all plugins speak.
func TestConflistVersions(t *testing.T) {
	for _, tt := range []struct {
		name               string
		portmap, bandwidth []string
		version, versions  string
		types              string
	}{
		{"as in Debian 12", []string{"0.1.0", "0.2.0", "0.3.1", "0.4.0", "1.0.0"}, []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0"},
			"1.0.0", "0.3.1 0.4.0 1.0.0", "weft-cni portmap bandwidth"},
		{"one is old", []string{"0.3.1", "0.4.0"}, []string{"0.4.0", "1.0.0", "1.1.0"}, "0.4.0", "0.4.0", "weft-cni portmap bandwidth"},
		{"one is too old", []string{"0.1.0", "0.2.0"}, []string{"0.4.0", "1.0.0", "1.1.0"}, "1.0.0", "0.4.0 1.0.0 1.1.0", "weft-cni bandwidth"},
		{"one is too new", []string{"0.4.0", "1.0.0", "1.1.0"}, []string{"1.1.0"}, "1.0.0", "0.4.0 1.0.0 1.1.0", "weft-cni portmap"},
		{"two have nothing in common", []string{"0.3.1"}, []string{"0.4.0"}, "0.3.1", "0.3.1", "weft-cni portmap"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newConflistRig(t, "portmap", "bandwidth")
			r.install("portmap", speaking(tt.portmap...))
			r.install("bandwidth", speaking(tt.bandwidth...))
			list, log := r.conflist()
			if got := strings.Join(list.CNIVersions, " "); got != tt.versions || list.CNIVersion != tt.version {
				t.Errorf("version %s of %s, want %s of %s", list.CNIVersion, got, tt.version, tt.versions)
			}
			if got := types(list); got != tt.types {
				t.Errorf("plugins %s, want %s", got, tt.types)
			}
			if out := strings.Contains(log, "it supports no CNI version that the other plugins support"); out != (len(list.Plugins) < 3) {
				t.Errorf("logged: %s", log)
			}
		})
	}
}

// A plugin that cannot be called is omitted, and named once.
func TestUncallablePluginIsOmitted(t *testing.T) {
	for _, tt := range []struct {
		name    string
		prepare func(r *rig)
		why     string
	}{
		{"absent", func(*rig) {}, "no such file or directory"},
		{"a folder", func(r *rig) { _ = os.Mkdir(r.plugin("portmap"), 0o755) }, "permission denied"},
		{"not executable", func(r *rig) {
			r.install("portmap", speaking("1.0.0"))
			_ = os.Chmod(r.plugin("portmap"), 0o644)
		}, "permission denied"},
		{"not a program", func(r *rig) { r.install("portmap", "\x00\x01") }, "exec format error"},
		{"failing", func(r *rig) { r.install("portmap", "#!/bin/sh\necho no such command >&2\nexit 3\n") }, "exit status 3: no such command"},
		{"not a plugin", func(r *rig) { r.install("portmap", "#!/bin/sh\necho hello\n") }, "decoding version info"},
		{"silent", func(r *rig) { r.install("portmap", "#!/bin/sh\nsleep 60\n") }, "no answer in 2s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newConflistRig(t, "portmap", "tuning")
			r.install("tuning", speaking("0.3.1", "0.4.0", "1.0.0"))
			tt.prepare(r)
			list, log := r.conflist()
			if got := types(list); got != "weft-cni tuning" {
				t.Errorf("plugins %s", got)
			}
			expectWords(t, log, "level=WARN", "plugin=portmap", tt.why, "hostPorts", r.config.CNI.BinDir, "containernetworking-plugins")
			if u := LookForUnusable(t.Context(), r.config.CNI); len(u) != 1 || u[0].Plugin != "portmap" || u[0].Lack != "hostPorts" || !strings.Contains(u[0].Err.Error(), tt.why) {
				t.Errorf("unusable: %v", u)
			}
			if _, log = r.conflist(); log != "" {
				t.Errorf("it is logged again: %s", log)
			}

			_ = os.Remove(r.plugin("portmap"))
			r.conflist()
			r.install("portmap", speaking("1.0.0"))
			list, log = r.conflist()
			if got := types(list); got != "weft-cni portmap tuning" {
				t.Errorf("after it was installed: plugins %s", got)
			}
			expectWords(t, log, "level=INFO", "plugin=portmap")
		})
	}
}

// The conflist is written again only if that changes it.
func TestConflistIsWrittenOnChange(t *testing.T) {
	r := newConflistRig(t, "portmap")
	r.install("portmap", speaking("0.4.0", "1.0.0"))
	r.conflist()
	before, err := os.Stat(r.Path())
	if err != nil {
		t.Fatal(err)
	}
	r.conflist()
	if after, err := os.Stat(r.Path()); err != nil || !os.SameFile(before, after) || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("nothing has changed, but the conflist was written again (%v)", err)
	}
	if n := r.asked("portmap"); n != 1 {
		t.Errorf("the same plugin was asked %d times", n)
	}

	r.install("portmap", speaking("0.4.0", "1.0.0", "1.1.0"))
	// The clock of file times is coarse; an installed file has a time of its own.
	if err := os.Chtimes(r.plugin("portmap"), time.Time{}, time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if list, _ := r.conflist(); strings.Join(list.CNIVersions, " ") != "0.4.0 1.0.0 1.1.0" {
		t.Errorf("the plugin was replaced, but the versions are %v", list.CNIVersions)
	}

	if err := os.Remove(r.Path()); err != nil {
		t.Fatal(err)
	}
	r.conflist() // fails if it is not back
}

// A runtime that takes no notice of files that appear, as containerd 1.6, must have
// another reason to look when the conflist is there.
func TestRuntimeNoticesConflist(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir()) // where a rename to the conflist would be possible, too
	r := newConflistRig(t)
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Close()
	if err := watcher.Add(r.config.CNI.ConfDir); err != nil {
		t.Fatal(err)
	}
	r.conflist()
	for late := time.After(testnet.WaitLimit); ; {
		select {
		case event := <-watcher.Events:
			if event.Has(fsnotify.Rename) {
				return
			}
		case <-late:
			t.Fatal("the conflist is there, but no file in its folder was renamed")
		}
	}
}

// A weftd that ends does not take silence for an absent plugin.
func TestEndingWeftdDropsNoPlugin(t *testing.T) {
	r := newConflistRig(t, "portmap")
	r.install("portmap", speaking("1.0.0"))
	list, _ := r.conflist()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r.install("portmap", speaking("0.4.0", "1.0.0"))
	if err := r.Write(ctx); err == nil {
		t.Error("the conflist was written by what could not be asked")
	}
	content, err := os.ReadFile(r.Path())
	if err != nil || !strings.Contains(string(content), `"portmap"`) {
		t.Errorf("the conflist was %v, is %s, %v", list, content, err)
	}
}
