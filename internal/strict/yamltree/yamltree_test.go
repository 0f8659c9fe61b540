package yamltree

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"weft/internal/strict"
)

func TestEveryValueKnowsWhereItIs(t *testing.T) {
	var problems strict.Problems
	root := Parse("a.yaml", []byte("# comment\nnodes:\n- name: \"on\"\n  podCIDRs:\n  - 0777\n  - |\n    text\n"), &problems)
	if err := problems.Err(); err != nil {
		t.Fatal(err)
	}
	var got []string
	walk(root, &problems, func(n *Node) {
		got = append(got, fmt.Sprintf("%s %s = %s %q", n.Origin(), n.Path(), n.Kind, n.Text))
	})
	want := `a.yaml:2  = a mapping ""
a.yaml:2 nodes = a list ""
a.yaml:3 nodes[0] = a mapping ""
a.yaml:3 nodes[0].name = a single value "on"
a.yaml:4 nodes[0].podCIDRs = a list ""
a.yaml:5 nodes[0].podCIDRs[0] = a single value "0777"
a.yaml:6 nodes[0].podCIDRs[1] = a single value "text\n"`
	if got := strings.Join(got, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// walk visits n and everything in it.
func walk(n *Node, problems *strict.Problems, visit func(n *Node)) {
	visit(n)
	for _, c := range n.Children {
		walk(c, problems, visit)
	}
	for item := range n.Items(problems) {
		walk(item, problems, visit)
	}
}

func TestHostileFilesAreRefusedFast(t *testing.T) {
	var bomb strings.Builder
	bomb.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := 1; i < 50; i++ {
		fmt.Fprintf(&bomb, "a%d: &a%d [%s*a%d]\n", i, i, strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 9), i-1)
	}
	for name, content := range map[string]string{
		"alias bomb":          bomb.String(),
		"alias of itself":     "a: &a [*a]",
		"deep lists":          strings.Repeat("[", 100_000),
		"deep closed lists":   strings.Repeat("[", 9_000) + strings.Repeat("]", 9_000),
		"deep mappings":       strings.Repeat("{a: ", 5_000) + strings.Repeat("}", 5_000),
		"many equal keys":     strings.Repeat("a: 1\n", 100_000),
		"many broken entries": strings.Repeat("? [a]\n: *b\n", 10_000),
	} {
		t.Run(name, func(t *testing.T) {
			var problems strict.Problems
			walk(Parse("a.yaml", []byte(content), &problems), &problems, func(*Node) {})
			err := problems.Err()
			if err == nil {
				t.Fatal("accepted")
			}
			if len(err.Error()) > 64<<10 {
				t.Errorf("the message has %d bytes", len(err.Error()))
			}
		})
	}
}

func TestEmptyDocumentIsAnEmptyMapping(t *testing.T) {
	for _, content := range []string{"", "# only a comment\n", "---\n", "~\n"} {
		var problems strict.Problems
		root := Parse("a.yaml", []byte(content), &problems)
		if root.Kind != Mapping || len(root.Children) != 0 || problems.Err() != nil {
			t.Errorf("%q: %v %v", content, root.Kind, problems.Err())
		}
	}
}

func TestReadFileTakesBoundedRegularFiles(t *testing.T) {
	dir := t.TempDir()
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, MaxSize); err != nil {
		t.Fatal(err)
	}
	if data, err := ReadFile(large); err != nil || len(data) != MaxSize {
		t.Errorf("a file of the largest size: %d bytes, %v", len(data), err)
	}
	if err := os.Truncate(large, MaxSize+1); err != nil {
		t.Fatal(err)
	}
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		large:      large + ": larger than 16 MiB; is it the right file?",
		pipe:       pipe + ": not a regular file",
		dir:        dir + ": not a regular file",
		dir + "/x": "stat " + dir + "/x: no such file or directory",
	} {
		if _, err := ReadFile(path); err == nil || err.Error() != want {
			t.Errorf("%s: %v; want %s", path, err, want)
		}
	}
}
