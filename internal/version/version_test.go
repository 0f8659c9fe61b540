package version

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestProgramKnowsItself builds a program as the Makefile does, and without it.
func TestProgramKnowsItself(t *testing.T) {
	for _, test := range []struct {
		name  string
		flags string
		want  string
	}{
		{
			"by the Makefile",
			"-X weft/internal/version.Version=1.2.3 -X weft/internal/version.commit=0123abc -X weft/internal/version.commitDate=1800000000",
			`"version": "1.2.3",` + "\n" + `  "commit": "0123abc",` + "\n" + `  "commitDate": "2027-01-15T08:00:00Z",`,
		},
		{"by go build alone", "", `"version": "devel",` + "\n" + `  "go"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			out := runIn(t, "../..", "go", "run", "-buildvcs=false", "-ldflags", test.flags, "./cmd/weft", "version", "-o", "json")
			if !strings.Contains(out, test.want) || !strings.Contains(out, `"path": "github.com/spf13/cobra"`) {
				t.Errorf("the program prints\n%s", out)
			}
		})
	}
}

// TestVersionOfTheSources runs scripts/version in repositories, and in archives of them.
func TestVersionOfTheSources(t *testing.T) {
	const stamp = "20270115080000"
	for _, test := range []struct {
		name  string
		tags  []string // each on a commit of its own
		after bool     // there is another commit
		dirty bool
		want  string // HASH is the commit's
	}{
		{"no tag", nil, false, false, "0.1.0-dev." + stamp + "+gHASH"},
		{"a tag that is no version", []string{"venerable"}, false, false, "0.1.0-dev." + stamp + "+gHASH"},
		{"a release", []string{"v1.2.3"}, false, false, "1.2.3"},
		{"a newer release", []string{"v1.2.9", "v1.2.10"}, false, false, "1.2.10"},
		{"after a release", []string{"v1.2.9"}, true, false, "1.2.10-dev." + stamp + "+gHASH"},
		{"a release candidate", []string{"v1.3.0-rc.1"}, false, false, "1.3.0-rc.1"},
		{"after a release candidate", []string{"v1.3.0-rc.1"}, true, false, "1.3.0-rc.1.dev." + stamp + "+gHASH"},
		{"a release, changed", []string{"v1.2.3"}, false, true, "1.2.4-dev." + stamp + "+gHASH.dirty"},
	} {
		t.Run(test.name, func(t *testing.T) {
			repository := newRepository(t)
			for _, tag := range test.tags {
				makeCommit(t, repository)
				runIn(t, repository, "git", "tag", tag)
			}
			if test.after {
				makeCommit(t, repository)
			}
			if test.dirty {
				write(t, filepath.Join(repository, "file"), "changed")
			}
			hash := strings.TrimSpace(runIn(t, repository, "git", "rev-parse", "--short=12", "HEAD"))
			want := strings.ReplaceAll(test.want, "HASH", hash) + "\n"
			if got := runIn(t, repository, "scripts/version"); got != want {
				t.Errorf("in the repository the version is %swant %s", got, want)
			}
			if test.dirty {
				return // an archive is of a commit
			}
			archive := t.TempDir()
			runIn(t, repository, "sh", "-c", "git archive HEAD | tar -x -C "+archive)
			for argument, want := range map[string]string{"": want, "date": "1800000000\n", "commit": hash} {
				if got := runIn(t, archive, "scripts/version", argument); !strings.HasPrefix(got, want) {
					t.Errorf("in an archive, version %s prints %swant %s", argument, got, want)
				}
			}
		})
	}
}

// newRepository has the script, and one commit.
func newRepository(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	runIn(t, "../..", "cp", "-r", "--parents", ".gitattributes", "scripts/version", "scripts/archived", dir)
	runIn(t, dir, "git", "init", "--quiet")
	makeCommit(t, dir)
	return dir
}

func makeCommit(t *testing.T, dir string) {
	t.Helper()
	file := filepath.Join(dir, "file")
	content, _ := os.ReadFile(file) // there may be none yet
	write(t, file, string(content)+"line\n")
	runIn(t, dir, "git", "add", ".")
	runIn(t, dir, "git", "-c", "user.name=weft", "-c", "user.email=weft@example.org", "commit", "--quiet", "--message=commit")
}

func write(t *testing.T, file, content string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// runIn returns what a program prints, run in a folder and at a certain time.
func runIn(t *testing.T, dir, program string, args ...string) string {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Dir = dir
	date := time.Unix(1_800_000_000, 0).Format(time.RFC3339)
	cmd.Env = append(os.Environ(), "GIT_COMMITTER_DATE="+date, "GIT_AUTHOR_DATE="+date, "GIT_CONFIG_GLOBAL=/dev/null")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v", program, strings.Join(args, " "), err)
	}
	return string(out)
}
