package config

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"strings"

	"github.com/spf13/pflag"

	"weft/internal/strict"
)

// New returns the configuration that flags and defaults alone make, and the text of a file that says
// the same. Defaults are texts by the paths of their keys; flags override them. New reads neither a
// file nor a variable.
func New(flags *pflag.FlagSet, defaults map[string]string) (Config, string, error) {
	var problems strict.Problems
	written := map[string]setting{}
	flagged := fromFlags(flags)
	for _, k := range keys {
		if text, ok := defaults[k.path]; ok {
			written[k.path] = settingOfText(k.path, text, k)
		} else if _, ok := flagged[k.path]; !ok && k.missing != "" {
			problems.Addf("--"+k.flag(), "", "missing; %s", k.missing)
		}
	}
	maps.Copy(written, flagged)
	c := build(written, &problems)
	checkSource(&c, written, &problems)
	checkMTU(&c, written, &problems)
	if err := problems.Err(); err != nil {
		return Config{}, "", err
	}
	return c, format(written), nil
}

// format returns the text of a file that says what was written, with the help of each key above it.
func format(written map[string]setting) string {
	var text strings.Builder
	var groups []string // that are open
	for _, k := range keys {
		s, ok := written[k.path]
		if !ok {
			continue
		}
		path := strings.Split(k.path, ".")
		within, name := path[:len(path)-1], path[len(path)-1]
		shared := 0
		for shared < min(len(groups), len(within)) && groups[shared] == within[shared] {
			shared++
		}
		if shared == 0 {
			text.WriteString("\n")
		}
		for depth := shared; depth < len(within); depth++ {
			fmt.Fprintf(&text, "%s%s:\n", indent(depth), within[depth])
		}
		groups = within
		fmt.Fprintf(&text, "%s# %s\n%s%s: %s\n", indent(len(within)), k.help, indent(len(within)), name, s.yaml(k))
	}
	return strings.TrimPrefix(text.String(), "\n")
}

func indent(depth int) string { return strings.Repeat("  ", depth) }

// yaml returns the setting as a file has it.
func (s setting) yaml(k key) string {
	var texts []string
	for _, i := range s.items {
		if k.objects { // JSON is YAML
			texts = append(texts, i.text)
		} else {
			texts = append(texts, yamlText(i.text))
		}
	}
	if k.list {
		return "[" + strings.Join(texts, ", ") + "]"
	}
	return cmp.Or(strings.Join(texts, ""), `""`)
}

// plainText is what YAML takes for this text without quotes, wherever it stands.
var plainText = regexp.MustCompile(`^[A-Za-z0-9/][A-Za-z0-9/._-]*$`)

func yamlText(text string) string {
	if plainText.MatchString(text) && !strings.EqualFold(text, "null") {
		return text
	}
	return fmt.Sprintf("%q", text)
}
