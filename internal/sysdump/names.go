package sysdump

import "regexp"

// secretName says which names have secrets as their values, in any text.
var secretName = regexp.MustCompile(`(?i:passw|passphrase|passcode|secret|token|credential|bearer|jwt|cookie|authorization)` +
	`|(?i:(?:api|access|private|shared|signing|encryption)[-_.]?key)` +
	`|(?:^|[^A-Za-z])(?i:pass|pwd|pw|psk)(?:[^a-z]|$)|[a-z0-9](?:Pass|Pwd|Pw|PW|Psk|PSK)(?:[^a-z]|$)|(?i:pass|pwd|psk)$` +
	`|(?:^|[^A-Za-z])(?i:sig|signature)(?:[^A-Za-z]|$)` +
	`|^[A-Z0-9_]*KEYS?$`) // of a variable

// secretKey says it of the keys of configurations. In other texts a key is a node's public one.
var secretKey = regexp.MustCompile(`(?i)private|auth|community|keys?$|key[-_]?(?:data|ring|[0-9]+)$`)

// publicKey are the exceptions from secretKey.
var publicKey = regexp.MustCompile(`(?i)pub(?:lic)?[-_.]?keys?$|fingerprints?$`)

// pathName is the end of a name whose value is not a secret but the path of a file with one.
var pathName = regexp.MustCompile(`(?i)[-_.]?(?:files?|paths?|dirs?|folders?)$`)

// aPath is such a value.
var aPath = regexp.MustCompile(`^(?:/|\.{1,2}/|~/)[\w./@%:,-]*$`)

// hidesValue says whether the value of a name in any text is to be removed.
func hidesValue(name, value string) bool {
	stem := pathName.ReplaceAllString(name, "")
	return secretName.MatchString(stem) && (stem == name || !aPath.MatchString(value))
}

// hidesKey says it of a key in a configuration.
func hidesKey(key, value string) bool {
	if key == "kubeconfig" {
		return !aPath.MatchString(value)
	}
	stem := pathName.ReplaceAllString(key, "")
	secret := secretName.MatchString(stem) || secretKey.MatchString(stem) && !publicKey.MatchString(stem)
	return secret && (stem == key || !aPath.MatchString(value))
}
