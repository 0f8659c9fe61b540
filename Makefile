# weft: a userspace overlay router for Kubernetes pod networks.
# `make` lists the targets. Those that touch the network need root.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c

# The version, its commit, and the date of all that a build writes, for which see
# https://reproducible-builds.org/specs/source-date-epoch/. Each script runs once.
VERSION ?= $(shell scripts/version)
COMMIT ?= $(shell scripts/version commit)
SOURCE_DATE_EPOCH ?= $(shell scripts/version date)
VERSION := $(or $(VERSION),0.0.0)
COMMIT := $(or $(COMMIT),unknown)
SOURCE_DATE_EPOCH := $(or $(SOURCE_DATE_EPOCH),0)
export SOURCE_DATE_EPOCH

LDFLAGS := -s -w -X weft/internal/version.Version=$(VERSION) -X weft/internal/version.commit=$(COMMIT) \
	-X weft/internal/version.commitDate=$(SOURCE_DATE_EPOCH)
# Without -buildvcs, an archive of the sources makes the same programs as the repository.
GOBUILD := CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)'

# Pinned here and not in go.mod, which holds what weft itself needs.
NFPM := github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.48.0
GOLANGCI_LINT := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

KUSTOMIZE := sigs.k8s.io/kustomize/kustomize/v5@v5.7.1

# Kubernetes' programs tell the version that they were linked with. It is that of kubernetes/programs/go.mod.
KUBE_VERSION = $(shell cd kubernetes/programs && go list -m -f '{{.Version}}' k8s.io/kubernetes)
KUBE_LDFLAGS = -s -w $(foreach package,k8s.io/component-base/version k8s.io/client-go/pkg/version,\
	-X $(package).gitVersion=$(KUBE_VERSION) -X $(package).gitMajor=1 -X $(package).gitMinor=$(word 2,$(subst ., ,$(KUBE_VERSION))))

FUZZTIME ?= 30s

.DEFAULT_GOAL := help
.PHONY: help deps build man package-files deb rpm test-packages licenses image image-lock manifests release test-release reproducible vulncheck demo demo-build demo-clean kubernetes-demo-build test test-upgrade torture e2e test-page screenshots kubernetes-build test-kubernetes conformance-build conformance lint model fuzz bench bench-quick bench-pods bench-scale bench-restart soak bench-check bench-code bench-build clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps: ## install the Debian packages that are missing
	@scripts/deps

build: ## build weftd, weft-cni and weft into bin/
	@$(GOBUILD) -o bin/ ./cmd/...

man: build ## write the manual pages into bin/man
	@rm -rf bin/man
	@bin/weft man --dir bin/man
	@scripts/weftd-man bin/weftd > bin/man/weftd.8

manifests: ## write what kubectl applies into bin/manifests (IMAGE=NAME, where the cluster has the image)
	@scripts/manifests $(KUSTOMIZE) $(IMAGE) bin/manifests

# The licences of all modules that weft's programs, and the plugins in its image, are linked with. A
# change of go.mod can change them.
LICENCES := bin/THIRD-PARTY-LICENSES

$(LICENCES): go.mod go.sum image/plugins/go.mod $(wildcard release/*.go release/licences/*.go)
	@mkdir -p bin
	@cd release && go run . licences -output ../$@

licenses: ## collect the licences of what weft is linked with in bin/THIRD-PARTY-LICENSES; one that is not allowed fails
	@rm -f $(LICENCES)
	@$(MAKE) --no-print-directory $(LICENCES)

# image/ is a module of its own: libraries that write images are no business of weft's.
# A tag can't have a plus sign. From localhost no node pulls an image, whoever owns a domain.
IMAGE ?= localhost/weft:$(subst +,-,$(VERSION))
IMAGE_ARCHS ?= amd64 arm64
IMAGE_FILE ?= bin/image/weft.tar

image: $(LICENCES) ## build the container image for IMAGE_ARCHS ("amd64 arm64") into bin/image/weft.tar
	@scripts/image-packages $(IMAGE_ARCHS)
	@for arch in $(IMAGE_ARCHS); do GOARCH=$$arch $(GOBUILD) -o bin/image/$$arch/ ./cmd/...; done
	@cd image/plugins && for arch in $(IMAGE_ARCHS); do \
		GOARCH=$$arch CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o ../../bin/image/$$arch/plugins/ tool; done
	@cd image && go run . -output $(abspath $(IMAGE_FILE)) -name $(IMAGE) -version $(VERSION) -revision $(COMMIT) \
		-created $(SOURCE_DATE_EPOCH) -debian ../bin/image/debian -programs ../bin/image \
		-document ../LICENSE -document ../$(LICENCES) $(IMAGE_ARCHS)

image-lock: ## take the newest Debian packages into image/debian.lock
	@scripts/image-packages --lock

# In versions of packages ~ is what the dash is to semver.org: 1.2.0~rc.1 comes before 1.2.0.
PACKAGE_VERSION = $(subst -,~,$(VERSION))
PACKAGE_ARCHS ?= amd64 arm64

package-files: man $(LICENCES)
	@rm -rf bin/package/man && mkdir -p bin/package && cp -r bin/man bin/package && gzip -9n bin/package/man/*
	@for shell in bash zsh fish; do bin/weft completion $$shell > bin/package/weft.$$shell; done
	@printf 'weft (%s) unstable; urgency=medium\n\n  * See the release notes.\n\n -- %s  %s\n' '$(PACKAGE_VERSION)' \
		"$$(sed -n 's/^maintainer: //p' packages/nfpm.yaml)" "$$(date -Ru -d @$(SOURCE_DATE_EPOCH))" | gzip -9n > bin/package/changelog.gz
	@for arch in $(PACKAGE_ARCHS); do GOARCH=$$arch $(GOBUILD) -o bin/package/$$arch/ ./cmd/...; done

deb: package-files ## build Debian packages for PACKAGE_ARCHS ("amd64 arm64") into bin/package/
	@$(MAKE_PACKAGES)

rpm: package-files ## build RPM packages for PACKAGE_ARCHS ("amd64 arm64") into bin/package/
	@$(MAKE_PACKAGES)

MAKE_PACKAGES = rm -f bin/package/*.$@; for arch in $(PACKAGE_ARCHS); do \
	ARCH=$$arch PACKAGE_VERSION='$(PACKAGE_VERSION)' go run $(NFPM) package --config packages/nfpm.yaml --packager $@ --target bin/package/; done

test-packages: deb rpm ## check the packages: lintian, what is in them, and install, upgrade, remove and purge in a Debian system
	@scripts/deps packages
	@scripts/package-root bin/package/root.tar
	@PACKAGES=$(CURDIR)/bin/package PACKAGE_ROOT=$(CURDIR)/bin/package/root.tar $(GOTEST) -tags packages -run TestPackage -v ./cmd/weftd | grep -v '^=== '

# Further files of a release: the targets that make them, and the files.
RELEASE_TARGETS := manifests deb rpm
RELEASE_FILES := bin/manifests/* bin/package/*.deb bin/package/*.rpm

release: build man image $(RELEASE_TARGETS) ## make a release with checksums in dist/
	@VERSION=$(VERSION) scripts/release $(IMAGE_ARCHS) -- $(IMAGE_FILE) $(RELEASE_FILES)

# release/ is a module of its own: libraries that know licences and lists of components are no
# business of weft's.
test-release: image ## check the image for amd64 and arm64, and what makes licences and SBOMs
	cd image && $(GOTEST) ./...
	cd release && $(GOTEST) ./...

reproducible: image ## build programs and image again in another folder without a cache, and compare, in a minute or two
	@VERSION=$(VERSION) COMMIT=$(COMMIT) scripts/reproducible $(IMAGE_FILE) $(IMAGE_ARCHS)

GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0

vulncheck: ## look for known vulnerabilities in what weft uses of its modules and Go (GOVULNDB=file:///FOLDER: a copy of the database)
	@scripts/vulncheck $(GOVULNCHECK)

# The demo in Kubernetes is a program of its own, with the same flags.
DEMO := $(if $(filter kubernetes,$(CONTROL)),bin/kubernetes-demo,bin/demo $(if $(CONTROL),--control $(CONTROL)))

demo: deps build $(if $(filter kubernetes,$(CONTROL)),kubernetes-demo-build,demo-build) ## show weft at work on three nodes (KEEP=1 leaves it running; ENCAP=vxlan; DRIVER=water; CONTROL=etcd or kubernetes)
	@$(DEMO) --bin bin $(if $(KEEP),--keep) $(if $(ENCAP),--encap $(ENCAP)) $(if $(DRIVER),--driver $(DRIVER))

demo-clean: demo-build ## remove what `make demo KEEP=1` left running, in Kubernetes too
	@bin/demo --clean

demo-build:
	@go build -o bin/demo ./internal/demo

kubernetes-demo-build:
	@echo "building Kubernetes' own programs: 6 minutes the first time, then a second"
	@$(MAKE) --no-print-directory kubernetes-build
	@cd kubernetes && go build -o ../bin/kubernetes-demo ./demo

# Two packages at a time, and four tests of each: tests wait about as long as they compute.
# The time limit only ends a hang; go test's own of ten minutes is less than cmd/weftd takes on
# a slow and busy machine.
GOTEST := go test -count=1 -p 2 -parallel 4 -timeout 60m

test: deps ## run all tests, those in network namespaces included, under the race detector
	@TIMEFORMAT='make test took %0R s of wall time and %0U + %0S s of processor time (user + system)'; \
		time $(GOTEST) -race ./...

# What make test takes a sample of: each system call of ADD and DEL, thousands of calls and
# nodes, gigabytes. Without the race detector, for which that is too much.
TORTURED := ./cniplugin ./cmd/weftd ./control/etcd ./encap/sealed/handshake ./internal/demo ./internal/hostnet

torture: deps ## run the tests that make test samples in full, in an hour
	@mkdir -p bin
	@TORTURE=1 $(GOTEST) -p 1 -timeout 3h -v $(TORTURED) 2>&1 | tee bin/torture.log | \
		grep --line-buffered -E '^(=== RUN +[^/]*$$|--- |FAIL|ok|panic)|_test\.go:[0-9]+:'

# The release before: its nodes and those of this one must work side by side.
UPGRADE_FROM ?= e8393b4

test-upgrade: deps ## upgrade nodes from UPGRADE_FROM (a commit) to this version and back, under load, in two minutes
	@scripts/build-at $(UPGRADE_FROM) bin/upgrade-from
	@UPGRADE_FROM_BIN=$(CURDIR)/bin/upgrade-from $(GOTEST) -tags upgrade -run TestUpgrade -v ./cmd/weftd | grep -v '^=== '

# e2e/ is a module of its own: the libraries that speak to containerd are no business of weft's.
e2e: deps ## run weft under containerd, podman, cnitool and Multus, in a minute
	@scripts/deps podman
	cd e2e && $(GOTEST) ./...

# browser/ is a module of its own: the library that drives Chromium is no business of weft's.
test-page: ## show the status page of real nodes in Chromium, healthy and broken, in a minute
	@scripts/deps browser
	cd browser && $(GOTEST) ./...

screenshots: ## make the pictures of the status page in docs/screenshots anew
	@scripts/deps browser
	@mkdir -p docs/screenshots
	cd browser && SCREENSHOTS=../docs/screenshots $(GOTEST) -run TestPage ./...

# kubernetes/programs/ is a module of its own: the whole of Kubernetes is no business of weft's,
# and its programs are not built of the newest client libraries. flannel's are others again;
# for amd64 it wants cgo.
kubernetes-build: ## build Kubernetes' own programs and flanneld into bin/kubernetes/, in 7 minutes the first time
	@cd kubernetes/programs && CGO_ENABLED=0 go build -trimpath -ldflags '$(KUBE_LDFLAGS)' -o ../../bin/kubernetes/ tool
	@cd kubernetes/flannel && CGO_ENABLED=1 go build -trimpath -ldflags '-s -w' -o ../../bin/kubernetes/flanneld github.com/flannel-io/flannel

test-kubernetes: IMAGE_ARCHS := $(shell go env GOARCH)
test-kubernetes: deps build kubernetes-build image manifests ## run a real Kubernetes in network namespaces, in three minutes
	cd kubernetes && $(GOTEST) ./...

# The suite comes from the sources of Kubernetes' programs. CoreDNS is a module of its own: its
# client libraries are others.
SUITE := ../../bin/suite
conformance-build:
	@echo "building Kubernetes' own tests: 4 minutes the first time, then seconds"
	@cd kubernetes/programs && CGO_ENABLED=0 go test -c -trimpath -ldflags '$(KUBE_LDFLAGS)' -o $(SUITE)/e2e.test k8s.io/kubernetes/test/e2e && \
		CGO_ENABLED=0 go build -trimpath -ldflags '$(KUBE_LDFLAGS)' -o $(SUITE)/ github.com/onsi/ginkgo/v2/ginkgo \
			k8s.io/kubernetes/test/images/agnhost k8s.io/kubernetes/test/images/regression-issue-74839 && \
		install -m 644 "$$(go list -m -f '{{.Dir}}' k8s.io/kubernetes)"/test/images/agnhost/porter/localhost.{crt,key} $(SUITE)/
	@cd kubernetes/coredns && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o $(SUITE)/ .
	@cd kubernetes && go build -o ../bin/suite/conformance ./conformance

conformance: IMAGE_ARCHS := $(shell go env GOARCH)
conformance: deps build kubernetes-build image manifests conformance-build ## run Kubernetes' own tests of networks, in 20 minutes, and write docs/CONFORMANCE.md (ARGS=-help)
	@scripts/deps conformance
	@bin/suite/conformance $(ARGS)

lint: ## run the linters of .golangci.yaml
	go run $(GOLANGCI_LINT) run
	cd e2e && go run $(GOLANGCI_LINT) run
	cd browser && go run $(GOLANGCI_LINT) run
	cd kubernetes && go run $(GOLANGCI_LINT) run
	cd image && go run $(GOLANGCI_LINT) run
	cd release && go run $(GOLANGCI_LINT) run

model: deps ## verify the model of epochs and handshakes with Spin, and find its seeded defects, in some minutes
	@scripts/model

fuzz: ## run each fuzz target for FUZZTIME (30s)
	@scripts/fuzz $(FUZZTIME)

# benchmarks/ is a module of its own: plots and wireguard-go are no business of weft's. Nebula is
# another, for it wants a newer Go. The floor is in C: it has no runtime that could take a part of
# the time.
bench-build: build
	@cd benchmarks && CGO_ENABLED=0 go build -o ../bin/bench/bench . && \
		CGO_ENABLED=0 go build -o ../bin/bench/podload ./load/podload && \
		CGO_ENABLED=0 go build -o ../bin/bench/wireguard-go golang.zx2c4.com/wireguard && \
		(cd nebula && GOTOOLCHAIN=auto CGO_ENABLED=0 go build -o ../../bin/bench/ tool) && \
		cc -O2 -Wall -pthread -o ../bin/bench/floor floor/floor.c

bench: deps bench-build ## measure weft beside other ways to connect pods, in three hours (ARGS=-help)
	@bin/bench/bench run $(ARGS)

bench-quick: deps bench-build ## print the ratios of weft to kernel VXLAN, Nebula, wireguard-go and the floor, in 3 minutes (ARGS="-before FOLDER": to another version too)
	@bin/bench/bench quick $(ARGS)

bench-pods: deps bench-build ## measure how fast pods are attached, beside bridge, ptp and host-local, in some minutes
	@bin/bench/bench pods $(ARGS)

bench-scale: deps bench-build kubernetes-build ## measure weft beside thousands of nodes in etcd, Kubernetes or a file, in 10 minutes
	@bin/bench/bench scale $(ARGS)

bench-restart: deps build ## measure what pods notice when weftd is replaced, in nine minutes (ARGS=-help)
	@cd benchmarks && CGO_ENABLED=0 go build -o ../bin/bench/bench .
	@bin/bench/bench restart $(ARGS)

soak: deps build ## run four nodes for 20 minutes while pods, peers, keys and nodes change, and see whether weftd grows (ARGS=-help)
	@cd benchmarks && CGO_ENABLED=0 go build -o ../bin/bench/bench .
	@bin/bench/bench soak $(ARGS)

bench-check: deps build kubernetes-build ## lint and test the benchmarks themselves
	cd benchmarks && go run $(GOLANGCI_LINT) run && $(GOTEST) -race ./...

bench-code: ## measure weft's own code: lookup, packets out and in, a million prefixes
	go test -run '^$$' -bench . -benchmem ./router/... ./fib ./packet
	cd benchmarks && go test -run '^$$' -bench . ./scale

clean: ## remove what the build made
	rm -rf bin dist
