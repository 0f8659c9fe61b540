// Package setup makes a host a node of a cluster: it chooses what differs from node to node, and writes
// the node's key, weftd's configuration and the list of nodes. It replaces nothing but the list, to which
// it adds nodes, and starts nothing.
package setup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"weft/control"
	"weft/control/file"
	"weft/control/sources"
	"weft/internal/advertise"
	"weft/internal/config"
	"weft/internal/family"
	"weft/internal/hostnet"
	"weft/internal/newfile"
	"weft/internal/nodekey"
	"weft/peer"
)

// Mistake is an error in what an operator wrote.
type Mistake struct{ error }

func (m Mistake) Unwrap() error { return m.error }

// Request is what an operator says of a new node.
type Request struct {
	// Flags are those of config.AddFlags. What they say becomes the configuration, but for advertise
	// where a file has the list of nodes: there it chooses this node's endpoint.
	Flags *pflag.FlagSet

	// ConfigPath is where the configuration is written.
	ConfigPath string

	// PodCIDRs are the node's own; if there are none, free ones are chosen.
	PodCIDRs []netip.Prefix

	// DryRun has nothing written.
	DryRun bool
}

// Node is a node that was set up.
type Node struct {
	Name         string           `json:"node"`
	Source       config.Source    `json:"source"`
	Endpoint     netip.AddrPort   `json:"endpoint"`
	ClusterCIDRs []netip.Prefix   `json:"clusterCIDRs"`
	PodCIDRs     []netip.Prefix   `json:"podCIDRs,omitempty"` // where a file has the list of nodes
	Key          peer.Fingerprint `json:"key,omitzero"`

	// Sealed nodes have keys; a dry run makes none.
	Sealed bool `json:"sealed"`

	// Entry is the node in the list of nodes, which each of Others needs too.
	Entry  string   `json:"entry,omitempty"`
	Others []string `json:"others,omitempty"`

	Files []File `json:"files"`
}

// File is one that a node has. Its text is known if it was not written.
type File struct {
	Path   string `json:"path"`
	Change Change `json:"change"`
	Text   string `json:"text,omitempty"`
}

// Change is what became of a file.
type Change string

// The values of File.Change.
const (
	Wrote      Change = "wrote"
	Changed    Change = "changed"
	Kept       Change = "kept"
	WouldWrite Change = "would write"
)

// draft is a node of which nothing but the key is written yet.
type draft struct {
	Node
	request Request
	config  config.Config
	text    string // of the configuration
}

// autoRule is the default of the key advertise.
const autoRule = "auto"

// Init makes this host the first node of a new cluster.
func Init(ctx context.Context, r Request) (*Node, error) {
	if err := r.expectNew(); err != nil {
		return nil, err
	}
	d, err := r.draft(autoRule, nil)
	if err != nil {
		return nil, err
	}
	if d.Source == config.SourceEtcd {
		nodes, err := load(ctx, d.config)
		if err != nil {
			return nil, err
		}
		if len(nodes) > 0 {
			return nil, fmt.Errorf("etcd has a cluster under %s, with node %s: run `weft join` with the same flags, or begin another cluster with --control-etcd-prefix", d.config.Control.Etcd.Prefix, nodes[0].Name)
		}
	}
	if err := d.key(); err != nil {
		return nil, err
	}
	if d.Source != config.SourceFile {
		return d.write(nil)
	}
	self, err := d.self(nil)
	if err != nil {
		return nil, err
	}
	return d.write(file.List(self))
}

// draft completes what the operator says: the configuration's keys by defaults where flags don't have
// them, and the endpoint by a rule where --advertise is not given.
func (r Request) draft(rule string, defaults map[string]string) (*draft, error) {
	d := &draft{request: r, Node: Node{Source: sourceOf(r.Flags)}}
	flags, values := r.Flags, map[string]string{"listen": "[::]:9338"} // both families, until the endpoint decides
	if d.Source == config.SourceFile {
		flags = without(flags, "advertise")
		values["control.file"] = flags.Lookup("control-file").DefValue
	}
	maps.Copy(values, defaults)
	if _, given := values["clusterCIDRs"]; !given && !flags.Changed("cluster-cidrs") {
		chosen, err := clusterCIDR()
		if err != nil {
			return nil, err
		}
		values["clusterCIDRs"] = chosen.String()
	}
	c, _, err := config.New(flags, values)
	if err != nil {
		return nil, Mistake{err}
	}
	if d.Endpoint, err = endpoint(c, r.Flags, rule); err != nil {
		return nil, err
	}
	values["listen"] = netip.AddrPortFrom(family.Of(d.Endpoint.Addr()).Unspecified(), d.Endpoint.Port()).String()
	for path, flag := range map[string]string{"listen": "listen", "echo.port": "echo-port"} {
		if values[path] == flags.Lookup(flag).DefValue {
			delete(values, path)
		}
	}
	if d.config, d.text, err = config.New(flags, values); err != nil {
		return nil, Mistake{err}
	}
	d.Name, d.ClusterCIDRs = d.config.Node, d.config.ClusterCIDRs
	if err := sources.CheckFiles(r.ConfigPath, d.config); err != nil {
		return nil, Mistake{err}
	}
	if name, _, _ := strings.Cut(d.Name, "."); name == "localhost" {
		return nil, Mistake{fmt.Errorf("the host is called %s, as many others are; give this node's name with --node", d.Name)}
	}
	return d, conflicts(c)
}

// conflicts returns what of this host's network lies in the cluster CIDRs.
func conflicts(c config.Config) error {
	overlaps, err := hostnet.Overlaps(c.TUN.Name, c.ClusterCIDRs)
	if err != nil {
		return err
	}
	routes, err := hostnet.ForeignRoutes(c.TUN.Name, c.ClusterCIDRs)
	if err != nil {
		return err
	}
	var errs []error
	for _, text := range overlaps {
		errs = append(errs, errors.New(text))
	}
	for _, r := range routes {
		errs = append(errs, fmt.Errorf("a route of another program takes packets to pods: %s; remove it (ip route del %s), or choose other clusterCIDRs on all nodes", r, r))
	}
	return errors.Join(errs...)
}

// Registers says whether flags choose a control source in which nodes register.
func Registers(flags *pflag.FlagSet) bool { return sourceOf(flags) != config.SourceFile }

// LoadConfig returns the configuration of a node that has one.
func LoadConfig(r Request) (config.Config, error) {
	c, err := config.Load(without(r.Flags, "advertise"), os.Environ())
	if err == nil {
		err = sources.CheckFiles(r.ConfigPath, c)
	}
	if err != nil {
		return c, Mistake{err}
	}
	return c, nil
}

// sourceOf returns which control source flags choose.
func sourceOf(flags *pflag.FlagSet) config.Source {
	source := config.SourceFile
	flags.Visit(func(f *pflag.Flag) {
		for _, s := range []config.Source{config.SourceEtcd, config.SourceKubernetes} {
			if strings.HasPrefix(f.Name, "control-"+string(s)+"-") {
				source = s
			}
		}
	})
	return source
}

// without returns the flags but for one.
func without(flags *pflag.FlagSet, name string) *pflag.FlagSet {
	rest := pflag.NewFlagSet("", pflag.ContinueOnError)
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Name != name {
			rest.AddFlag(f)
		}
	})
	return rest
}

// endpoint returns where other nodes send to: where --advertise says, or at the address on which weftd
// listens, or by a rule of the key advertise.
func endpoint(c config.Config, flags *pflag.FlagSet, rule string) (netip.AddrPort, error) {
	addr := c.Listen.Addr()
	if f := flags.Lookup("advertise"); f.Changed {
		rule = f.Value.String()
	} else if !addr.IsUnspecified() {
		return c.Listen, nil
	}
	parsed, err := advertise.Parse(rule)
	if err != nil {
		return netip.AddrPort{}, Mistake{fmt.Errorf("--advertise: %w", err)}
	}
	if addr, err = parsed.Choose(advertise.Families(addr), c.ClusterCIDRs, []string{c.TUN.Name}); err != nil {
		return netip.AddrPort{}, fmt.Errorf("choose this node's address: %w (with --advertise)", err)
	}
	return netip.AddrPortFrom(addr, c.Listen.Port()), nil
}

// expectNew returns an error if this host is a node already.
func (r Request) expectNew() error {
	for _, path := range r.paths() {
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("%s exists already, and nothing is replaced; if this host is to be set up anew, remove %s first", path, strings.Join(r.paths(), " and "))
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// paths are the files that write makes, in that order.
func (r Request) paths() []string {
	if Registers(r.Flags) {
		return []string{r.ConfigPath}
	}
	return []string{r.Flags.Lookup("control-file").Value.String(), r.ConfigPath}
}

// ensureKey makes a node's key if there is none. A dry run only looks.
func ensureKey(path string, dryRun bool) (key peer.Fingerprint, change File, err error) {
	change = File{Path: path, Change: Kept}
	if _, err := os.Lstat(path); dryRun && errors.Is(err, fs.ErrNotExist) {
		change.Change = WouldWrite
		return key, change, nil
	}
	if dryRun {
		key, err = nodekey.LoadFingerprint(path)
		return key, change, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return key, change, err
	}
	key, made, err := nodekey.Ensure(path)
	if made {
		change.Change = Wrote
	}
	return key, change, err
}

// key makes the node's key, if it needs one.
func (d *draft) key() error {
	if d.config.Encapsulation != config.EncapsulationSealed {
		return nil
	}
	d.Sealed = true
	key, change, err := ensureKey(d.config.KeyFile, d.request.DryRun)
	d.Key, d.Files = key, append(d.Files, change)
	return err
}

// self returns the node's entry in a list that has others.
func (d *draft) self(listed []control.Node) (control.Node, error) {
	d.PodCIDRs = d.request.PodCIDRs
	if len(d.PodCIDRs) == 0 {
		var err error
		if d.PodCIDRs, err = podCIDRs(listed, d.ClusterCIDRs); err != nil {
			return control.Node{}, err
		}
	}
	for _, n := range listed {
		d.Others = append(d.Others, n.Name)
	}
	n := control.Node{Name: d.Name, Endpoint: d.Endpoint, PodCIDRs: d.PodCIDRs, Key: d.Key}
	d.Entry = file.Entry(n)
	return n, nil
}

// header begins each configuration.
const header = "# weftd's configuration. A key that is missing has its default: `weftd --help` lists all of them.\n\n"

// write writes the list of nodes, if a file has it, and at last the configuration: where it is, the
// rest is there too.
func (d *draft) write(list []byte) (*Node, error) {
	texts := [][]byte{[]byte(header + d.text)}
	if d.Source == config.SourceFile {
		if err := d.checkList(list); err != nil {
			return nil, err
		}
		texts = [][]byte{list, texts[0]}
	}
	paths := d.request.paths()
	for i, path := range paths {
		if d.request.DryRun {
			d.Files = append(d.Files, File{path, WouldWrite, string(texts[i])})
			continue
		}
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if err == nil {
			err = newfile.Write(path, texts[i], 0o644)
		}
		if err != nil {
			for _, written := range paths[:i] {
				err = errors.Join(err, os.Remove(written))
			}
			return nil, fmt.Errorf("write %s: %w", path, err)
		}
		d.Files = append(d.Files, File{Path: path, Change: Wrote})
	}
	return &d.Node, nil
}

// checkList returns why weftd would reject the list. A dry run may have no key yet.
func (d *draft) checkList(list []byte) error {
	err := check(d.config.Control.File, list, control.Options{Node: d.Name, ClusterCIDRs: d.ClusterCIDRs, Key: d.Key})
	if err != nil && len(d.request.PodCIDRs) > 0 {
		return Mistake{err}
	}
	return err
}
