package main

import (
	"context"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"weft/kubernetes"
)

// showRights speaks to the API server with the token of node1's weftd, as an attacker on
// node1 would.
func (d *demo) showRights(ctx context.Context) error {
	node1, err := d.AsNode("node1")
	if err != nil {
		return err
	}
	own := d.Node(1).Entry().Endpoint.String()
	if err := annotate(ctx, node1, "node1", "weft.network/endpoint", own); err != nil {
		return fmt.Errorf("node1 may not write its own entry: %w", err)
	}
	d.OK("node1's token writes weft.network/endpoint of node1: allowed")
	before, err := d.annotations(ctx)
	if err != nil {
		return err
	}
	const notBound, notOwn = "is not bound to this Node", "no annotations but those that a node writes"
	for _, try := range []struct{ node, key, why string }{
		{"node2", "weft.network/endpoint", notBound},
		{"node2", "weft.network/key", notBound},
		{"node1", "weft.network/override-endpoint", notOwn}, // it is an administrator's
	} {
		answer := annotate(ctx, node1, try.node, try.key, own)
		if err := d.mustBeRefused("writes "+try.key+" of "+try.node, answer, try.why); err != nil {
			return err
		}
	}
	answer := node1.CoreV1().Nodes().Delete(ctx, "node2", meta.DeleteOptions{})
	if err := d.mustBeRefused("deletes node2", answer, "cannot delete resource"); err != nil {
		return err
	}
	after, err := d.annotations(ctx)
	if err == nil && after != before {
		err = fmt.Errorf("the Nodes' annotations were %s, and are %s", before, after)
	}
	if err != nil {
		return err
	}
	d.OK("the annotations of both Nodes are what they were before")
	return nil
}

func annotate(ctx context.Context, as *kubernetes.Client, node, key, value string) error {
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, key, value)
	_, err := as.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, patch, meta.PatchOptions{})
	return err
}

// mustBeRefused prints the API server's words if it has refused what was tried for the
// reason why, and returns an error if it has not.
func (d *demo) mustBeRefused(what string, answer error, why string) error {
	if apierrors.ReasonForError(answer) == meta.StatusReasonUnknown || !strings.Contains(answer.Error(), why) {
		return fmt.Errorf("node1's token %s, and the answer is: %w", what, answer)
	}
	d.OK("node1's token %s: refused", what)
	for _, line := range wrap(answer.Error(), 80) {
		d.Note("    %s", line)
	}
	return nil
}

// annotations are those of both Nodes.
func (d *demo) annotations(ctx context.Context) (string, error) {
	list, err := d.Admin.CoreV1().Nodes().List(ctx, meta.ListOptions{})
	if err != nil {
		return "", err
	}
	var all strings.Builder
	for _, node := range list.Items {
		fmt.Fprintln(&all, node.Name, node.Annotations)
	}
	return all.String(), nil
}

// wrap breaks a text into lines of at most some characters, at spaces.
func wrap(text string, width int) (lines []string) {
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines, line = append(lines, line), ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	return append(lines, line)
}
