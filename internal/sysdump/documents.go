package sysdump

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// withoutSecrets returns a file in YAML or JSON without the values of keys that look secret. One that
// can't be parsed may have secrets anywhere.
func withoutSecrets(text []byte) ([]byte, error) {
	var document any
	if json.Unmarshal(text, &document) == nil {
		return json.MarshalIndent(hide(document, false), "", "  ")
	}
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		return nil, fmt.Errorf("left out, because its secrets can't be found: %w", err)
	}
	hideNodes(&root, false, map[*yaml.Node]bool{})
	return yaml.Marshal(&root)
}

// In a list of {name: TOKEN, value: x}, the name says what the value is.
var nameKeys, valueKeys = []string{"name", "key"}, []string{"value", "values", "val", "data", "content", "default"}

func isNameKey(key string) bool  { return slices.Contains(nameKeys, strings.ToLower(key)) }
func isValueKey(key string) bool { return slices.Contains(valueKeys, strings.ToLower(key)) }

// precedesSecret says that an item of a list of arguments is --token, and the next one the token.
func precedesSecret(argument, next string) bool {
	return strings.HasPrefix(argument, "-") && !strings.ContainsAny(argument, "= \t") && hidesValue(argument, next)
}

// hide replaces the strings and numbers of a JSON document that are behind a secret's key, and
// returns what stands in the place of value.
func hide(value any, secret bool) any {
	switch v := value.(type) {
	case map[string]any:
		named := false
		for key, item := range v {
			named = named || isNameKey(key) && hidesKey(textOf(item), "")
		}
		for key, item := range v {
			v[key] = hide(item, secret || hidesKey(key, textOf(item)) || named && isValueKey(key))
		}
	case []any:
		before := ""
		for i, item := range v {
			v[i] = hide(item, secret || precedesSecret(before, textOf(item)))
			before = textOf(item)
		}
	case string:
		if secret && v != "" {
			return removed
		}
		var document any
		if strings.HasPrefix(strings.TrimSpace(v), "{") && json.Unmarshal([]byte(v), &document) == nil { // JSON in JSON, as of cni.extra
			if text, err := json.Marshal(hide(document, false)); err == nil {
				return string(text)
			}
		}
	case float64:
		if secret {
			return removed
		}
	}
	return value
}

// textOf returns a string, and of other values nothing.
func textOf(value any) string {
	text, _ := value.(string)
	return text
}

// hideNodes is hide for YAML. Comments may hold anything, and go. An alias may lead to what it is
// a part of: followed are those that were hidden already.
func hideNodes(n *yaml.Node, secret bool, followed map[*yaml.Node]bool) {
	n.HeadComment, n.LineComment, n.FootComment = "", "", ""
	named := false
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		named = named || isNameKey(n.Content[i].Value) && hidesKey(n.Content[i+1].Value, "")
	}
	before := ""
	for i, child := range n.Content {
		behind := secret
		value := child.Value
		switch {
		case n.Kind == yaml.MappingNode && i%2 == 0:
			behind = false
		case n.Kind == yaml.MappingNode:
			behind = secret || hidesKey(before, value) || named && isValueKey(before)
		case n.Kind == yaml.SequenceNode:
			behind = secret || precedesSecret(before, value)
		}
		hideNodes(child, behind, followed)
		before = value
	}
	switch {
	case secret && n.Kind == yaml.AliasNode && n.Alias != nil && !followed[n.Alias]:
		followed[n.Alias] = true
		hideNodes(n.Alias, true, followed)
	case secret && n.Kind == yaml.ScalarNode && n.Value != "" && n.ShortTag() != "!!bool" && n.ShortTag() != "!!null":
		n.SetString(removed)
	}
}
