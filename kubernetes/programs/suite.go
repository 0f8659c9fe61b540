//go:build suite

// Package programs keeps in go.mod what `make conformance-build` builds besides the tools:
// Kubernetes' own end-to-end tests, what runs them, and programs of their images.
package programs

import (
	_ "github.com/onsi/ginkgo/v2/ginkgo"
	_ "k8s.io/kubernetes/test/e2e"
	_ "k8s.io/kubernetes/test/images/agnhost"
	_ "k8s.io/kubernetes/test/images/regression-issue-74839"
)
