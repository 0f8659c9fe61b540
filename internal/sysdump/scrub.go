package sysdump

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"

	"go.yaml.in/yaml/v4"

	"weft/control/sources"
	"weft/internal/doctor"
)

// removed stands in the place of a secret.
const removed = "REMOVED"

// scrubber removes secrets: those that the configuration names, wherever they are, and what looks
// like one.
type scrubber struct {
	known [][]byte // the longest first
}

func newScrubber(in doctor.Input) *scrubber {
	if in.ConfigErr != nil {
		return &scrubber{}
	}
	return scrubberOf(sources.Secrets(in.Config))
}

// scrubberOf removes each of the secrets as a whole, in base64 as kubeconfigs have them, and of a
// PEM file each line of the key.
func scrubberOf(secrets [][]byte) *scrubber {
	const least = 4 // bytes: less would be found in every text
	const leastOfLine = 16
	s := &scrubber{}
	for _, secret := range secrets {
		secret = bytes.TrimSpace(secret)
		if len(secret) < least {
			continue
		}
		s.known = append(s.known, secret, []byte(base64.StdEncoding.EncodeToString(secret)))
		for line := range bytes.Lines(secret) {
			if line = bytes.TrimSpace(line); len(line) >= leastOfLine && !bytes.HasPrefix(line, []byte("-----")) {
				s.known = append(s.known, line)
			}
		}
	}
	slices.SortFunc(s.known, func(a, b []byte) int { return len(b) - len(a) })
	return s
}

// patterns are what secrets look like in any text; $1 and $2 stay.
var patterns = []*regexp.Regexp{
	regexp.MustCompile(`-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\z)`),
	regexp.MustCompile(`([A-Za-z][A-Za-z0-9+.-]*://)[^/@\s"']+(@)`),                             // of a URL
	regexp.MustCompile(`()eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}()`),        // a JSON Web Token
	regexp.MustCompile(`((?i)authorization["']?\s*[:=]\s*["']?(?:bearer|basic)?\s*)[^\s"']+()`), // of a request
	regexp.MustCompile(`((?i)"[\w-]*(?:passw|secret|token|credential)[\w-]*=)[^"]*(")`),         // an assignment of systemd's
	regexp.MustCompile(`((?i)[\w-]*(?:passw|secret|token|credential)[\w-]*=)(?:"[^"]*"|'[^']*'|[^\s"']+)()`),
	regexp.MustCompile(`((?i)"[\w-]*(?:passw|secret|token|credential)[\w-]*"\s*:\s*)"[^"]*"()`),
}

func (s *scrubber) scrub(text []byte) []byte {
	for _, secret := range s.known {
		text = bytes.ReplaceAll(text, secret, []byte(removed))
	}
	for _, p := range patterns {
		text = p.ReplaceAll(text, []byte("${1}"+removed+"${2}"))
	}
	return text
}

// secretKey says which keys of a configuration have secrets as their values; pathKey, which of them
// name files that hold them.
var (
	secretKey = regexp.MustCompile(`(?i)passw|secret|token|credential|private|api.?key|auth|bearer|[a-z0-9][_-]?key$|key[_-]?data$`)
	pathKey   = regexp.MustCompile(`(?i)(file|path|dir|folder)$|^trustKeyChange$`)
)

func isSecret(key string) bool { return secretKey.MatchString(key) && !pathKey.MatchString(key) }

// withoutSecrets returns a file in YAML or JSON without the values of keys that look secret. One that
// can't be parsed may have secrets anywhere.
func withoutSecrets(text []byte) ([]byte, error) {
	var document any
	if json.Unmarshal(text, &document) == nil {
		hide(document, false)
		return json.MarshalIndent(document, "", "  ")
	}
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil {
		return nil, fmt.Errorf("left out, because its secrets can't be found: %w", err)
	}
	hideNodes(&root, false)
	return yaml.Marshal(&root)
}

// hide replaces the strings and numbers of a JSON document that are behind a secret's key, and
// returns what stands in the place of value.
func hide(value any, secret bool) any {
	switch v := value.(type) {
	case map[string]any:
		for key, item := range v {
			v[key] = hide(item, secret || isSecret(key))
		}
	case []any:
		for i, item := range v {
			v[i] = hide(item, secret)
		}
	case string:
		var document any
		if inner := json.Unmarshal([]byte(v), &document); !secret && inner == nil { // JSON in JSON, as of cni.extra
			if text, err := json.Marshal(hide(document, false)); err == nil {
				return string(text)
			}
		}
		if secret {
			return removed
		}
	case float64:
		if secret {
			return removed
		}
	}
	return value
}

// hideNodes is hide for YAML. Comments may hold anything, and go.
func hideNodes(n *yaml.Node, secret bool) {
	n.HeadComment, n.LineComment, n.FootComment = "", "", ""
	for i, child := range n.Content {
		behind := secret
		if n.Kind == yaml.MappingNode {
			behind = i%2 == 1 && (secret || isSecret(n.Content[i-1].Value))
		}
		hideNodes(child, behind)
	}
	switch {
	case secret && n.Kind == yaml.AliasNode && n.Alias != nil && n.Alias.Value != removed:
		hideNodes(n.Alias, true)
	case secret && n.Kind == yaml.ScalarNode:
		n.SetString(removed)
	}
}
