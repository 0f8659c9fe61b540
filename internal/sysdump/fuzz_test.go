package sysdump

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// Whatever a secret is, a JSON document stays one and loses nothing else, also one that a log quotes.
func FuzzScrub(f *testing.F) {
	for _, s := range []string{"hunter2", `a"b\`, `\\"`, "[", "://@", `x@y`, "two words", "token=x", "\n", `'`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, secret string) {
		if secret == "" || harmless.MatchString(secret) || strings.Contains(secret, "-----BEGIN") { // a key may have no end
			t.Skip()
		}
		type document struct {
			Name  string `json:"name"`
			Token string `json:"token"`
			More  int    `json:"more"`
		}
		text, err := json.Marshal(document{"n", secret, 1})
		if err != nil {
			t.Fatal(err)
		}
		var got document
		scrubbed := (&scrubber{}).scrub(text)
		if err := json.Unmarshal(scrubbed, &got); err != nil || got != (document{"n", removed, 1}) {
			t.Errorf("%s became %s: %v", text, scrubbed, err)
		}
		want := `msg="a" error="{\"name\":\"n\",\"token\":\"REMOVED\",\"more\":1}" peer=b`
		if scrubbed := (&scrubber{}).scrub(fmt.Appendf(nil, `msg="a" error=%q peer=b`, text)); string(scrubbed) != want {
			t.Errorf("%q in a log became %s", text, scrubbed)
		}
	})
}
