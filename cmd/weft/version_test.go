package main

import (
	"strings"
	"testing"
	"time"

	"weft/internal/version"
)

func TestVersion(t *testing.T) {
	info := version.Info{
		Version: "1.2.3", Commit: "0123abc", CommitDate: time.Date(2027, 1, 15, 8, 0, 0, 0, time.UTC), Go: "go1.30", Platform: "linux/arm64",
		Modules: []version.Module{{Path: "example.org/module", Version: "v4.5.6"}},
	}
	for _, test := range []struct {
		name    string
		info    version.Info
		modules bool
		want    string
	}{
		{"as a release", info, false, `
version      1.2.3
commit       0123abc
commit date  2027-01-15T08:00:00Z
Go           go1.30
platform     linux/arm64
`},
		{"with modules", info, true, `
version      1.2.3
commit       0123abc
commit date  2027-01-15T08:00:00Z
Go           go1.30
platform     linux/arm64
module       example.org/module v4.5.6
`},
		{"without a repository", version.Info{Version: "devel", Go: "go1.30", Platform: "linux/arm64"}, false, `
version      devel
commit       unknown
commit date  unknown
Go           go1.30
platform     linux/arm64
`},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out strings.Builder
			if err := printVersion(&out, test.info, test.modules); err != nil {
				t.Fatal(err)
			}
			if got := "\n" + out.String(); got != test.want {
				t.Errorf("it prints%swant%s", got, test.want)
			}
		})
	}
	if code, stdout, stderr := asWeft(t, "version"); code != 0 || !strings.Contains(stdout, "version      "+version.Version+"\n") {
		t.Errorf("weft version: %d, %s%s", code, stdout, stderr)
	}
}
