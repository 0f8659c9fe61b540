package hostcheck

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"weft/internal/warning"
)

// ruleComment is the comment of the rules that AcceptForward adds, by which Remove finds them.
const ruleComment = "weft: accept what pods send and receive"

// AcceptForward adds two rules to each filter that drops pods' packets, through the host's
// own iptables or in the chain AcceptChain. Filters that drop nothing are left alone. It
// changes nothing of what weft's own table drops.
func (h Host) AcceptForward(ctx context.Context, found []warning.Warning) error {
	var errs []error
	for _, program := range h.programs(found) {
		errs = append(errs, acceptIn(ctx, program))
	}
	if h.AcceptChain != "" && dropsIn(found, "nftables chain "+h.AcceptChain+" ") {
		// In one transaction: a half that succeeds would be added again with each attempt.
		insert := func(direction string) string {
			return fmt.Sprintf("insert rule %s %s %q accept comment %q", h.AcceptChain, direction, PodLinks+"*", ruleComment)
		}
		_, err := run(ctx, "nft", insert("iifname")+"; "+insert("oifname"))
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("accept forwarded packets (host.acceptForward): %w", err)
	}
	return nil
}

// programs are those whose FORWARD chain drops.
func (h Host) programs(found []warning.Warning) (all []string) {
	for _, program := range everyIPTables {
		subject := strings.Replace(program, "-nft", "", 1)
		if dropsIn(found, subject+" chain FORWARD ") {
			all = append(all, program)
		}
	}
	return all
}

func dropsIn(found []warning.Warning, subject string) bool {
	for _, w := range found {
		if w.Code == CodeForward && strings.HasPrefix(w.Text, subject) {
			return true
		}
	}
	return false
}

var everyIPTables = []string{"iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"}

// acceptIn adds the rules to a program's chain for others, or to FORWARD.
func acceptIn(ctx context.Context, program string) error {
	chain := "FORWARD"
	if _, err := run(ctx, program, "-n", "-L", dockerUser); err == nil {
		chain = dockerUser
	}
	for _, direction := range []string{"-i", "-o"} {
		match := []string{chain, direction, PodLinks + "+", "-m", "comment", "--comment", ruleComment, "-j", "ACCEPT"}
		if _, err := run(ctx, program, append([]string{"-C"}, match...)...); err == nil {
			continue
		}
		if _, err := run(ctx, program, append([]string{"-I"}, match...)...); err != nil {
			return err
		}
	}
	return nil
}

// Remove takes back what AcceptForward added, wherever it stands.
func Remove(ctx context.Context) error {
	var errs []error
	for _, program := range everyIPTables {
		if _, err := exec.LookPath(program); err != nil {
			continue
		}
		if strings.HasSuffix(program, "-legacy") && !legacyStands(strings.TrimSuffix(program, "tables-legacy")) {
			continue
		}
		text, err := run(ctx, program+"-save", "-t", "filter")
		if err != nil {
			continue // it has no tables
		}
		for line := range strings.Lines(string(text)) {
			if words := splitWords(strings.TrimSpace(line)); len(words) > 1 && words[0] == "-A" && strings.Contains(line, ruleComment) {
				_, err := run(ctx, program, append([]string{"-D"}, words[1:]...)...)
				errs = append(errs, err)
			}
		}
	}
	listed, err := run(ctx, "nft", "-j", "list", "ruleset")
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	objects, err := parseNFT(listed)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, o := range objects {
		if r := o.Rule; r != nil && r.Comment == ruleComment {
			_, err := run(ctx, "nft", "delete", "rule", r.Family, r.Table, r.Chain, "handle", fmt.Sprint(r.Handle))
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove weft's rules from other programs' filters: %w", err)
	}
	return nil
}
