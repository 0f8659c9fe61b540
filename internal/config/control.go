package config

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"weft/internal/family"
	"weft/internal/strict"
)

// flannelPort is the UDP port of flannel's VXLAN devices, which its annotations don't carry.
const flannelPort = 8472

// checkSource sets the control source by what was written of any, and checks what the
// keys of that source must be together.
func checkSource(c *Config, written map[string]setting, problems *strict.Problems) {
	c.Control.Source = SourceFile
	chosen := ""
	for _, path := range slices.Sorted(maps.Keys(written)) {
		source, ok := sourceOf(path)
		switch {
		case !ok:
		case chosen == "":
			c.Control.Source, chosen = source, path
		case source != c.Control.Source:
			s := written[path]
			problems.Addf(s.origin, s.subject, "only one control source is allowed, and %s is written too; remove one of the two", chosen)
			return
		}
	}
	for path, what := range ofRegistries {
		if s, ok := written[path]; ok && c.Control.Source == SourceFile {
			problems.Addf(s.origin, s.subject, "the list of nodes, control.file, says %s; remove the key, or write control.etcd or control.kubernetes", what)
		}
	}
	if s, ok := written["addresses"]; ok { // or all nodes, this one included, would reject this one
		if err := strict.CheckNodeAddresses(c.Addresses, c.ClusterCIDRs); err != nil {
			problems.Add(s.origin, s.subject, err)
		}
	}
	switch s := written[chosen]; c.Control.Source {
	case SourceEtcd:
		checkEtcd(c, s, written, problems)
	case SourceKubernetes:
		if c.Control.Kubernetes.FlannelCompat && c.Encapsulation != EncapsulationVXLAN {
			s := written["control.kubernetes.flannelCompat"]
			problems.Addf(s.origin, s.subject, "flannel's nodes understand the encapsulation vxlan only, and not %s; write encapsulation: vxlan", c.Encapsulation)
		}
		if c.Control.Kubernetes.FlannelCompat && c.Listen.IsValid() && c.Listen.Port() != flannelPort {
			problems.Addf(cmp.Or(origin(written, "listen"), origin(written, "control.kubernetes.flannelCompat")), "listen", "flannel's nodes send to port %d, whatever this node's port is; write listen: 0.0.0.0:%d", flannelPort, flannelPort)
		}
		if _, ok := written["control.kubernetes.kubeconfig"]; !ok {
			problems.Addf(s.origin, s.subject, `control.kubernetes.kubeconfig is missing; write its path, or "" to use the service account of the pod in which weftd runs`)
		}
	}
}

// ofRegistries are the keys that count where nodes register, and what a file says instead.
var ofRegistries = map[string]string{
	"advertise":              "where this node is reached",
	"addresses":              "which addresses each node has",
	"control.trustKeyChange": "which key each node has, and its author decides that",
}

// sourceOf returns which control source a key is of.
func sourceOf(path string) (Source, bool) {
	rest, ok := strings.CutPrefix(path, "control.")
	name, _, _ := strings.Cut(rest, ".")
	_, ofSeveral := ofRegistries[path]
	return Source(name), ok && !ofSeveral
}

// checkEtcd checks what the keys of control.etcd must be together; first is one of them.
func checkEtcd(c *Config, first setting, written map[string]setting, problems *strict.Problems) {
	e := c.Control.Etcd
	if _, ok := written["control.etcd.endpoints"]; !ok {
		problems.Addf(first.origin, first.subject, "control.etcd.endpoints is missing; write the URLs of etcd's members, such as [https://192.168.77.101:2379]")
	}
	for _, pair := range []struct{ a, b, aText, bText string }{
		{"control.etcd.certFile", "control.etcd.keyFile", e.CertFile, e.KeyFile},
		{"control.etcd.username", "control.etcd.passwordFile", e.Username, e.PasswordFile},
	} {
		if (pair.aText == "") != (pair.bText == "") {
			s := cmp.Or(origin(written, pair.a), origin(written, pair.b), first.origin)
			problems.Addf(s, "control.etcd", "%s and %s belong together; write both or none", pair.a, pair.b)
		}
	}
	for _, u := range e.Endpoints {
		if strings.HasPrefix(u, "https:") != strings.HasPrefix(e.Endpoints[0], "https:") {
			problems.Addf(origin(written, "control.etcd.endpoints"), "control.etcd.endpoints", "some etcd endpoints are http, and some https, such as %s; write one kind", u)
			break
		}
	}
	plain := slices.ContainsFunc(e.Endpoints, func(u string) bool { return strings.HasPrefix(u, "http://") })
	if plain && e.Username != "" {
		problems.Addf(origin(written, "control.etcd.endpoints"), "control.etcd.endpoints", "a password must not cross the network in clear; write https:// endpoints")
	}
	for _, file := range []struct{ path, text string }{{"control.etcd.caFile", e.CAFile}, {"control.etcd.certFile", e.CertFile}} {
		if plain && file.text != "" {
			problems.Addf(origin(written, file.path), file.path, "a certificate has no effect with http://, which is not encrypted; write https:// endpoints, or remove the key")
		}
	}
	for _, p := range c.ClusterCIDRs {
		mask, most := e.MaskIPv4, "control.etcd.maskIPv4"
		if family.Of(p.Addr()) == family.IPv6 {
			mask, most = e.MaskIPv6, "control.etcd.maskIPv6"
		}
		if mask > 0 && mask < p.Bits() { // 0: a problem was made of it already
			problems.Addf(cmp.Or(origin(written, most), origin(written, "clusterCIDRs")), most, "a pod CIDR with /%d does not fit into the cluster CIDR %s; write a number from %d on", mask, p, p.Bits())
		}
	}
}

func origin(written map[string]setting, path string) string { return written[path].origin }

func addAddress(c *Config, text string) error {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return fmt.Errorf("%s is not an address; write it like 192.168.78.1 or fd00:78::1", strict.Quote(text))
	}
	c.Addresses = append(c.Addresses, addr)
	return nil
}

// showable is an endpoint in which nothing can be a password, or the half of one that a comma cut.
var showable = regexp.MustCompile(`^([a-z]+://)?(\[[0-9A-Fa-f:.]*\]|[A-Za-z0-9._-]*)(:[0-9]*)?(/[A-Za-z0-9._/-]*)?$`)

func addEtcdEndpoint(c *Config, text string) error {
	if at := strings.LastIndexByte(text, '@'); at >= 0 {
		return fmt.Errorf("the URL of %s has a user or a password; write it like https://192.168.77.101:2379, and these under control.etcd.username and in control.etcd.passwordFile", hostOf(text[at+1:]))
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.Port() == "" || strings.Trim(u.Path, "/") != "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%s is not the URL of an etcd member; write it like https://192.168.77.101:2379", hostOf(text))
	}
	c.Control.Etcd.Endpoints = append(c.Control.Etcd.Endpoints, u.Scheme+"://"+u.Host)
	return nil
}

// hostOf quotes an endpoint that is showable.
func hostOf(endpoint string) string {
	if !showable.MatchString(endpoint) {
		return "an endpoint, not shown because it may hold a password,"
	}
	return strict.Quote(endpoint)
}

// etcdPrefix is narrower than what etcd takes: such a name needs no quoting in etcdctl's
// commands, and one is never the beginning of another by accident.
var etcdPrefix = regexp.MustCompile(`^(/[A-Za-z0-9_.-]+)+$`)

func setEtcdPrefix(c *Config, text string) error {
	c.Control.Etcd.Prefix = text
	if !etcdPrefix.MatchString(text) {
		return fmt.Errorf("%s is not a valid prefix; write names of letters, digits, '_', '.' and '-', each after a '/', such as /weft", strict.Quote(text))
	}
	return nil
}

func setKubeconfig(c *Config, text string) error {
	if text == "" {
		c.Control.Kubernetes.Kubeconfig = ""
		return nil
	}
	if err := setPath(&c.Control.Kubernetes.Kubeconfig, text); err != nil {
		return fmt.Errorf("%w, or an empty string (\"\") to use the service account of the pod in which weftd runs", err)
	}
	return nil
}

func setTrustKeyChange(c *Config, text string) error {
	c.Control.TrustKeyChange = TrustKeyChange(text)
	switch c.Control.TrustKeyChange {
	case TrustAlways, TrustNever:
		return nil
	}
	return fmt.Errorf("%s is neither always nor never; write one of them", strict.Quote(text))
}
