// Package sbom lists the components of weft's programs and of its container image, as CycloneDX
// defines it: https://cyclonedx.org/docs/1.6/json. It reads the finished files, not the recipes that
// they were built by.
package sbom

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/CycloneDX/cyclonedx-go"
)

// Product is what a list is about.
type Product struct {
	Name    string
	Version string
	Created time.Time

	// Licences returns the SPDX identifiers of a module's licences, none if it does not know them.
	Licences func(path string) []string
}

// List collects components.
type List struct {
	product      Product
	components   map[string]cyclonedx.Component // by their references
	dependencies map[string][]string            // references
}

// New returns a list without components.
func New(p Product) *List {
	return &List{product: p, components: map[string]cyclonedx.Component{}, dependencies: map[string][]string{}}
}

// root refers to the product.
const root = "product"

// AddProgram adds a Go program and its modules. The platform is as in linux/amd64.
func (l *List) AddProgram(name, platform string, content []byte) error {
	info, err := buildinfo.Read(bytes.NewReader(content))
	if err != nil {
		return fmt.Errorf("read what %s is linked with: %w", name, err)
	}
	program := platform + "/" + name
	l.add(root, program, cyclonedx.Component{
		Type: cyclonedx.ComponentTypeApplication, Name: name, Version: l.product.Version,
		Hashes:     &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: fmt.Sprintf("%x", sha256.Sum256(content))}},
		Licenses:   choices([]string{"Apache-2.0"}),
		Properties: &[]cyclonedx.Property{{Name: "platform", Value: platform}},
	})
	l.addModule(program, "std", strings.TrimPrefix(info.GoVersion, "go"))
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		l.addModule(program, m.Path, m.Version)
	}
	return nil
}

func (l *List) addModule(program, path, version string) {
	reference := "pkg:golang/" + path + "@" + url.QueryEscape(version)
	l.add(program, reference, cyclonedx.Component{
		Type: cyclonedx.ComponentTypeLibrary, Name: path, Version: version, PackageURL: reference,
		Licenses: choices(l.product.Licences(path)),
	})
}

// AddDebian adds a package of Debian's, by its fields in dpkg's list of packages.
func (l *List) AddDebian(control string) error {
	fields := map[string]string{}
	for line := range strings.Lines(control) {
		if name, value, ok := strings.Cut(line, ": "); ok && !strings.HasPrefix(line, " ") {
			fields[name] = strings.TrimSpace(value)
		}
	}
	for _, field := range []string{"Package", "Version", "Architecture"} {
		if fields[field] == "" {
			return fmt.Errorf("a package of Debian's has no field %s", field)
		}
	}
	reference := fmt.Sprintf("pkg:deb/debian/%s@%s?arch=%s", fields["Package"], url.QueryEscape(fields["Version"]), fields["Architecture"])
	l.add(root, reference, cyclonedx.Component{
		Type: cyclonedx.ComponentTypeLibrary, Name: fields["Package"], Version: fields["Version"], PackageURL: reference,
		Supplier: &cyclonedx.OrganizationalEntity{Name: fields["Maintainer"]},
	})
	return nil
}

// add adds a component that another needs.
func (l *List) add(by, reference string, c cyclonedx.Component) {
	c.BOMRef = reference
	l.components[reference] = c
	if !slices.Contains(l.dependencies[by], reference) {
		l.dependencies[by] = append(l.dependencies[by], reference)
	}
}

func choices(licences []string) *cyclonedx.Licenses {
	if len(licences) == 0 {
		return nil
	}
	var all cyclonedx.Licenses
	for _, id := range licences {
		all = append(all, cyclonedx.LicenseChoice{License: &cyclonedx.License{ID: id}})
	}
	return &all
}

// Write writes the list as JSON, always in the same order.
func (l *List) Write(out io.Writer) error {
	bom := cyclonedx.NewBOM()
	bom.Metadata = &cyclonedx.Metadata{
		Timestamp: l.product.Created.UTC().Format(time.RFC3339),
		Component: &cyclonedx.Component{
			BOMRef: root, Type: cyclonedx.ComponentTypeApplication, Name: l.product.Name, Version: l.product.Version, Licenses: choices([]string{"Apache-2.0"}),
		},
	}
	var components []cyclonedx.Component
	for _, c := range l.components {
		components = append(components, c)
	}
	slices.SortFunc(components, func(a, b cyclonedx.Component) int { return strings.Compare(a.BOMRef, b.BOMRef) })
	bom.Components = &components
	var dependencies []cyclonedx.Dependency
	for of, on := range l.dependencies {
		slices.Sort(on)
		dependencies = append(dependencies, cyclonedx.Dependency{Ref: of, Dependencies: &on})
	}
	slices.SortFunc(dependencies, func(a, b cyclonedx.Dependency) int { return strings.Compare(a.Ref, b.Ref) })
	bom.Dependencies = &dependencies
	encoder := cyclonedx.NewBOMEncoder(out, cyclonedx.BOMFileFormatJSON)
	return encoder.SetPretty(true).EncodeVersion(bom, cyclonedx.SpecVersion1_6)
}
