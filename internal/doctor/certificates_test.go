package doctor

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"
)

// The dates of certificates are compared with the clock.
func TestDatesOfCertificates(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	end := begin.AddDate(1, 0, 0)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "node1"}, NotBefore: begin, NotAfter: end}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	text := append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	for _, tt := range []struct {
		name   string
		now    time.Time
		result Result
		part   string
	}{
		{"a clock that was set back", begin.Add(-time.Hour), Failed, "CN=node1 begins 2026-01-01"},
		{"after the end", end.Add(time.Second), Failed, "CN=node1 ended 2027-01-01"},
		{"six days before the end", end.AddDate(0, 0, -6), Warning, "CN=node1 ends 2027-01-01"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n, found := datesOf("cert.pem", text, tt.now)
			if n != 1 {
				t.Errorf("%d certificates", n)
			}
			expect(t, found, tt.result, tt.part)
		})
	}
	if n, found := datesOf("cert.pem", text, begin.AddDate(0, 6, 0)); n != 1 || len(found) > 0 {
		t.Errorf("a valid certificate: %d, %v", n, found)
	}
	if n, found := datesOf("key.pem", []byte("no certificate"), begin); n != 0 || len(found) > 0 {
		t.Errorf("no certificate: %d, %v", n, found)
	}
}
