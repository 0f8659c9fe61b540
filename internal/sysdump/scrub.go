package sysdump

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"weft/control/sources"
	"weft/internal/config"
	"weft/internal/doctor"
	"weft/internal/nodekey"
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
		text, _ := read(in.ConfigPath) // what can't be read names no files
		return scrubberOf(secretsNamed(text))
	}
	return scrubberOf(sources.Secrets(in.Config))
}

// secretFile finds the files with secrets that a configuration names, also in one that is not
// valid YAML.
var secretFile = regexp.MustCompile(`(?i)(kubeconfig|(?:key|password|token|secret)[-_]?file)\\*["']?\s*[:=]\s*\\*["']?(/[^\s"',}\]\\]+)`)

// secretsNamed returns the secrets that can be read although the configuration can't.
func secretsNamed(text []byte) (secrets [][]byte) {
	paths := []string{filepath.Join(filepath.Dir(config.DefaultPath), nodekey.FileName)}
	for _, match := range secretFile.FindAllSubmatch(text, -1) {
		path := string(match[2])
		if bytes.EqualFold(match[1], []byte("kubeconfig")) {
			c := config.Config{Control: config.Control{Source: config.SourceKubernetes, Kubernetes: config.Kubernetes{Kubeconfig: path}}}
			secrets = append(secrets, sources.Secrets(c)...)
			continue
		}
		paths = append(paths, path)
	}
	const most = 1 << 20 // bytes: more is no secret
	for _, path := range paths {
		if secret, err := read(path); err == nil && len(secret) <= most {
			secrets = append(secrets, secret)
		}
	}
	return secrets
}

// scrubberOf removes each of the secrets as a whole, in the forms in which programs print it, and
// of a PEM file each line of the key.
func scrubberOf(secrets [][]byte) *scrubber {
	const least = 4 // bytes: less would be found in every text
	const leastOfLine = 16
	s := &scrubber{}
	for _, secret := range secrets {
		secret = bytes.TrimSpace(secret)
		if len(secret) < least {
			continue
		}
		s.known = append(s.known, forms(secret)...)
		for line := range bytes.Lines(secret) {
			if line = bytes.TrimSpace(line); len(line) >= leastOfLine && !bytes.HasPrefix(line, []byte("-----")) {
				s.known = append(s.known, forms(line)...)
			}
		}
	}
	slices.SortFunc(s.known, func(a, b []byte) int { return cmp.Or(len(b)-len(a), bytes.Compare(a, b)) })
	s.known = slices.CompactFunc(s.known, bytes.Equal)
	return s
}

// forms returns a secret as it is, in base64 as kubeconfigs have it, as a part of a URL, and in
// quotes: those of Go or of JSON, also of an error with quotes within those of a log's line.
func forms(secret []byte) [][]byte {
	text := string(secret)
	all := []string{text, base64.StdEncoding.EncodeToString(secret), base64.URLEncoding.EncodeToString(secret),
		url.QueryEscape(text), url.PathEscape(text), url.User(text).String()}
	const levels = 3 // an error in a log's line in JSON
	inner := []string{text}
	for range levels {
		var outer []string
		for _, form := range inner {
			for _, quoted := range []string{strconv.Quote(form), inJSON(form, true), inJSON(form, false)} {
				if quoted = quoted[1 : len(quoted)-1]; !slices.Contains(outer, quoted) {
					outer = append(outer, quoted)
				}
			}
		}
		all, inner = append(all, outer...), outer
	}
	slices.Sort(all)
	var unique [][]byte
	for _, form := range slices.Compact(all) {
		unique = append(unique, []byte(form))
	}
	return unique
}

// inJSON returns text as a JSON string.
func inJSON(text string, escapeHTML bool) string {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(escapeHTML)
	_ = encoder.Encode(text) // a string can always be encoded
	return string(bytes.TrimSpace(b.Bytes()))
}

// patterns are what secrets look like in any text; $1 and $2 stay.
var patterns = []*regexp.Regexp{
	regexp.MustCompile(`-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----[\s\S]*?(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\z)`),
	regexp.MustCompile(`(://)(?:\\[^\s]|[^\s"\\])*(@)`),                                  // of a URL; a password may hold what a URL may not
	regexp.MustCompile(`()eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}()`), // a JSON Web Token
}

// endpoint is one without a scheme, with user and password.
var endpoint = regexp.MustCompile(`[\w.+-]+:(?:[^\s"/]|/[^\s"/])(?:\\[^\s]|[^\s"\\])*(@[\w\[])`)

// scrubEndpoints looks at few lines, since it takes its time.
func scrubEndpoints(text []byte) []byte {
	var out bytes.Buffer
	for line := range bytes.Lines(text) {
		if bytes.IndexByte(line, '@') >= 0 {
			line = endpoint.ReplaceAll(line, []byte(removed+"${1}"))
		}
		out.Write(line)
	}
	return out.Bytes()
}

func (s *scrubber) scrub(text []byte) []byte {
	for _, secret := range s.known {
		text = bytes.ReplaceAll(text, secret, []byte(removed))
	}
	for _, p := range patterns {
		text = p.ReplaceAll(text, []byte("${1}"+removed+"${2}"))
	}
	return scrubFields(scrubEndpoints(text))
}
