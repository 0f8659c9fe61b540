package config

import (
	"fmt"
	"strings"
	"testing"

	"weft/internal/manual"
)

func TestManualHasEveryKey(t *testing.T) {
	var text strings.Builder
	text.WriteString("| key | value | default | meaning |\n|---|---|---|---|\n")
	for _, k := range keys {
		fallback := k.otherwise
		if k.fallback != "" {
			fallback = "`" + k.fallback + "`"
		}
		fmt.Fprintf(&text, "| `%s` | %s | %s | %s |\n", k.path, strings.ReplaceAll(k.arg, "|", `\|`), fallback, k.help)
	}
	manual.ExpectSection(t, "docs/operations/configure.md", "keys", text.String())
}
