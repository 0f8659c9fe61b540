package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"weft/internal/strict"
	"weft/internal/strict/yamltree"
)

const (
	configFlag     = "config"
	variablePrefix = "WEFT_"
)

// setting is what was written for one key.
type setting struct {
	origin string

	// subject is the key's path in the file; empty where origin names the key already.
	subject string

	// items are the values: one, or those of a list.
	items []item

	// refused says that a problem was made of the setting already.
	refused bool
}

type item struct{ origin, subject, text string }

// flatten calls emit for every key that is written in the tree under n.
func flatten(n *yamltree.Node, emit func(path string, s setting), problems *strict.Problems) {
	for _, child := range n.Children {
		path := child.Path()
		i := slices.IndexFunc(keys, func(k key) bool { return k.path == path })
		switch {
		case slices.Contains(groups(), path):
			switch {
			case !child.Is(yamltree.Mapping, problems):
			case len(child.Children) == 0:
				problems.Addf(child.Origin(), path, "holds no keys; write some, or remove it")
			default:
				flatten(child, emit, problems)
			}
		case i < 0:
			problems.Addf(child.Origin(), path, "unknown key; %s", unknown(path, func(k key) string { return k.path }, groups()...))
		default:
			emit(path, settingOf(child, keys[i], problems))
		}
	}
}

func settingOf(n *yamltree.Node, k key, problems *strict.Problems) setting {
	s := setting{origin: n.Origin(), subject: n.Path()}
	scalars := []*yamltree.Node{n}
	if k.list {
		if s.refused = !n.Is(yamltree.List, problems); s.refused {
			return s
		}
		scalars = slices.Collect(n.Items(problems))
	}
	for _, scalar := range scalars {
		switch {
		case k.objects:
			s.addObject(scalar, problems)
		case !scalar.Is(yamltree.Scalar, problems):
			s.refused = true
		default:
			s.items = append(s.items, item{scalar.Origin(), scalar.Path(), scalar.Text})
		}
	}
	return s
}

// addObject adds a mapping as JSON.
func (s *setting) addObject(n *yamltree.Node, problems *strict.Problems) {
	origin, subject := n.Origin(), n.Path()
	if !n.Is(yamltree.Mapping, problems) {
		s.refused = true
		return
	}
	text, err := json.Marshal(n.JSON(problems))
	if err != nil {
		problems.Add(origin, subject, err)
		s.refused = true
		return
	}
	s.items = append(s.items, item{origin, subject, string(text)})
}

// settingOfText is the setting of a key by a flag or variable, which origin names.
func settingOfText(origin, text string, k key) setting {
	s := setting{origin: origin}
	texts := []string{text}
	switch {
	case k.objects:
		texts = splitObjects(text)
	case k.list:
		texts = splitList(text)
	}
	for i, t := range texts {
		it := item{origin: origin, text: t}
		if k.objects { // whose errors don't show the text
			it.subject = fmt.Sprintf("entry %d", i+1)
		}
		s.items = append(s.items, it)
	}
	return s
}

func splitList(text string) []string {
	if strings.TrimSpace(text) == "" {
		return nil
	}
	items := strings.Split(text, ",")
	for i := range items {
		items[i] = strings.TrimSpace(items[i])
	}
	return items
}

// splitObjects returns the items of a JSON list, which may lack its brackets. What is no
// JSON is one item, and refused as that.
func splitObjects(text string) []string {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil
	}
	list := text
	if !strings.HasPrefix(list, "[") {
		list = "[" + list + "]"
	}
	var items []json.RawMessage
	if json.Unmarshal([]byte(list), &items) != nil {
		return []string{text}
	}
	texts := make([]string, len(items))
	for i, item := range items {
		texts[i] = string(item)
	}
	return texts
}

// serviceLink matches what Kubernetes puts into a container's environment for
// every Service in its namespace: with one named weft or weft-metrics, WEFT_PORT
// or WEFT_METRICS_SERVICE_HOST appear, and must not stop weftd.
// See https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
var serviceLink = regexp.MustCompile(`_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// fromEnviron returns what WEFT_ variables set. A variable that is set to nothing
// is an empty value, not a missing one.
func fromEnviron(environ []string, problems *strict.Problems) map[string]setting {
	written := make(map[string]setting)
	texts := variables(environ)
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		i := slices.IndexFunc(keys, func(k key) bool { return k.variable() == name })
		switch {
		case i >= 0:
			written[keys[i].path] = settingOfText(name, texts[name], keys[i])
		case name != variable(configFlag) && !serviceLink.MatchString(name):
			problems.Addf(name, "", "unknown variable; %s", unknown(name, key.variable, variable(configFlag)))
		}
	}
	return written
}

// variables returns the WEFT_ variables. The last of equal names counts.
func variables(environ []string) map[string]string {
	texts := make(map[string]string)
	for _, v := range environ {
		if name, text, ok := strings.Cut(v, "="); ok && strings.HasPrefix(name, variablePrefix) {
			texts[name] = text
		}
	}
	return texts
}

// filePath returns the configuration file's path, and whether a flag or a variable names it.
func filePath(flags *pflag.FlagSet, environ []string) (path string, named bool) {
	if f := flags.Lookup(configFlag); f != nil && f.Changed {
		return f.Value.String(), true
	}
	if path, named = variables(environ)[variable(configFlag)]; named {
		return path, true
	}
	return DefaultPath, false
}

// Path returns the path of the configuration file that Load reads.
func Path(flags *pflag.FlagSet, environ []string) string {
	path, _ := filePath(flags, environ)
	return path
}

// AddFlags adds a flag for every key, and --config. Load reads them.
func AddFlags(flags *pflag.FlagSet) {
	flags.Var(&flagValue{arg: "PATH", text: DefaultPath}, configFlag, "the configuration file")
	for _, k := range keys {
		flags.Var(&flagValue{arg: k.arg, text: k.fallback, list: k.list}, k.flag(), k.usage())
	}
}

func fromFlags(flags *pflag.FlagSet) map[string]setting {
	written := make(map[string]setting)
	for _, k := range keys {
		if f := flags.Lookup(k.flag()); f != nil && f.Changed {
			text := f.Value.String()
			if absolute, err := filepath.Abs(text); k.arg == "PATH" && text != "" && err == nil {
				text = absolute // from the folder in which the command was written
			}
			written[k.path] = settingOfText("--"+k.flag(), text, k)
		}
	}
	return written
}

// flagValue keeps a flag's text until Load parses it like the same text in a file.
type flagValue struct {
	arg  string
	text string
	list bool
	set  bool
}

func (v *flagValue) String() string { return v.text }
func (v *flagValue) Type() string   { return v.arg }

// Set adds to a list: a flag that is given twice must not lose its first value.
func (v *flagValue) Set(text string) error {
	if v.list && v.set {
		text = v.text + "," + text
	}
	v.text, v.set = text, true
	return nil
}

// names returns one of the names of every key.
func names(of func(key) string) []string {
	all := make([]string, len(keys))
	for i, k := range keys {
		all[i] = of(k)
	}
	return all
}

// groups returns the keys of the file that only hold other keys: "tun", "control.etcd".
func groups() []string {
	var all []string
	for _, k := range keys {
		for i, r := range k.path {
			if group := k.path[:i]; r == '.' && !slices.Contains(all, group) {
				all = append(all, group)
			}
		}
	}
	return all
}
