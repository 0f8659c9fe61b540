package sysdump

import (
	"bytes"
	"regexp"
)

var (
	// separator is what stands between a name and its value: the end of the name's quotes, and a
	// sign. Without a sign, and with a comma, only an argument or quotes make it a value.
	separator = regexp.MustCompile(`^(\\*["'])?([ \t]*[:=]+>?[ \t]*|,?[ \t]+|,)`)

	quote = regexp.MustCompile(`^\\*["']`)

	// header is a name whose value goes on to the end of the line.
	header = regexp.MustCompile(`(?i)(?:authorization|cookie)$`)

	// harmless values say how a program works, or what a server answers about a token.
	harmless = regexp.MustCompile(`^(?:true|false|yes|no|null|Unauthorized|Forbidden|` + removed + `)[\])},;.:]*$`)
)

// scrubFields removes the values of names that look secret: name=value, "name": "value",
// --name value, name "value". It reads each part of the text once, or a bounded number of times.
func scrubFields(text []byte) []byte {
	var out bytes.Buffer
	done, lineEnd := 0, 0 // text up to done is in out
	names := secretNames{}
	for start, end := nextName(text, 0); start < end; start, end = nextName(text, end) {
		if lineEnd < end {
			lineEnd = len(text)
			if i := bytes.IndexByte(text[end:], '\n'); i >= 0 {
				lineEnd = end + i
			}
		}
		f, ok := fieldAt(text, start, end, lineEnd)
		if !ok || !names.has(text[start:end]) {
			continue
		}
		from, to, quotes := f.value(text)
		end = to
		value := text[from:to]
		if len(value) == 0 || harmless.Match(value) || !hidesValue(string(f.name), string(value)) {
			continue
		}
		out.Write(text[done:from])
		out.Write(quotes)
		out.WriteString(removed)
		out.Write(quotes)
		done = to
	}
	out.Write(text[done:])
	return out.Bytes()
}

// nextName returns where the next name is. After the last one, start is end.
func nextName(text []byte, from int) (start, end int) {
	for start = from; start < len(text) && !ofName(text[start]); start++ {
	}
	for end = start; end < len(text) && ofName(text[end]); end++ {
	}
	return start, end
}

func ofName(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-' || c == '.'
}

// secretNames remembers which names may hide their values: a log has few, many times.
type secretNames map[string]bool

func (s secretNames) has(name []byte) bool {
	const most = 10_000
	secret, known := s[string(name)]
	if !known {
		secret = hidesValue(string(name), "")
		if len(s) < most {
			s[string(name)] = secret
		}
	}
	return secret
}

// field is a name that has a value.
type field struct {
	name    []byte
	closed  []byte // the quotes behind the name
	before  []byte // the quotes in front of it
	signed  bool   // the separator is a colon or an equals sign
	from    int    // of the value
	lineEnd int
}

// fieldAt returns the field with the name text[start:end]. Without a sign, only an argument or
// quotes make a value of what is next.
func fieldAt(text []byte, start, end, lineEnd int) (field, bool) {
	const most = 64 // bytes of a separator
	near := text[end:min(end+most, lineEnd)]
	match := separator.FindSubmatchIndex(near)
	if match == nil {
		return field{}, false
	}
	f := field{name: text[start:end], before: openQuote(text[:start]), from: end + match[1], lineEnd: lineEnd}
	if match[2] >= 0 {
		f.closed = near[match[2]:match[3]]
	}
	between := near[match[4]:match[5]]
	f.signed = bytes.ContainsAny(between, ":=")
	quoted := f.closed == nil && between[0] != ',' && quote.Match(text[f.from:lineEnd])
	return f, f.signed || f.name[0] == '-' || quoted
}

// value returns where the value is, and the quotes that JSON needs around what replaces it.
func (f field) value(text []byte) (from, to int, quotes []byte) {
	rest := text[f.from:f.lineEnd]
	opening := quote.Find(rest)
	switch {
	case opening != nil:
		from = f.from + len(opening)
		return from, from + untilQuote(rest[len(opening):], opening), nil
	case f.signed && len(rest) > 0 && (rest[0] == '[' || rest[0] == '{'):
		return f.from, f.from + untilBracket(text[f.from:], len(rest)), f.closed
	case f.closed != nil: // a number
		return f.from, f.from + until(rest, ",}] \t"), f.closed
	case f.before != nil:
		return f.from, f.from + untilQuote(rest, f.before), nil
	case header.Match(f.name):
		return f.from, f.from + until(rest, `"`), nil
	default:
		word := rest[:until(rest, " \t\"\r")]
		return f.from, f.from + len(bytes.TrimRight(word, "])},;")), nil
	}
}

// openQuote returns the quotes with their backslashes at the end of text, if they are there.
func openQuote(text []byte) []byte {
	if !bytes.HasSuffix(text, []byte{'"'}) && !bytes.HasSuffix(text, []byte{'\''}) {
		return nil
	}
	start := len(text) - 1
	for start > 0 && text[start-1] == '\\' {
		start--
	}
	return text[start:]
}

// until returns the length of text before one of the characters, and before the backslashes that
// belong to quotes.
func until(text []byte, ends string) int {
	i := bytes.IndexAny(text, ends)
	if i < 0 {
		return len(text)
	}
	if text[i] == '"' {
		return len(bytes.TrimRight(text[:i], `\`))
	}
	return i
}

// untilQuote returns the length of text before the quotes that close what opening opened. With n
// backslashes before these, each level of escapes has twice as many and one more.
func untilQuote(text, opening []byte) int {
	n := len(opening) - 1
	run := 0
	for i, c := range text {
		switch {
		case c == '\\':
			run++
			continue
		case c == opening[n] && run%(2*(n+1)) <= n:
			return i - min(run, n)
		}
		run = 0
	}
	return len(text)
}

// untilBracket returns the length of a list or an object, with its brackets. One that has no end
// nearby is cut there, or at the end of its line.
func untilBracket(text []byte, line int) int {
	const most = 4 << 10 // bytes
	depth := 0
	for i, c := range text[:min(most, len(text))] {
		switch c {
		case '[', '{':
			depth++
		case ']', '}':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return max(line, min(most, len(text)))
}
