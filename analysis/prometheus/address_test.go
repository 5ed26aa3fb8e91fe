// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"errors"
	"strings"
	"testing"
)

func TestAddresses(t *testing.T) {
	const noURL, noScheme = "it is not a valid URL", "it does not begin with http:// or https://"
	const noHost, noPort = "it names no host", "its port is not a number from 1 to 65535"
	for address, want := range map[string]string{
		"http://prometheus:9090":           "",
		"https://prometheus.example/a/b/":  "",
		"http://[::1]:65535":               "",
		"http://user:hunter2@prometheus":   "", // whoever installs may
		"http://%zz":                       noURL,
		"http://[::1":                      noURL,
		"http://user:hunter2/x@prometheus": noURL,
		"http://x:hunter2":                 noURL,
		"http://x:99999":                   noPort,
		"http://x:65536":                   noPort,
		"http://x:0":                       noPort,
		"http://":                          noHost,
		"http:///hunter2":                  noHost,
		"http://:9090":                     noHost,
		"prometheus:9090":                  noScheme,
		"":                                 noScheme,
	} {
		t.Run(address, func(t *testing.T) {
			_, err := New(Config{URL: address})
			if want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, ErrAddress) || err.Error() != "the address of Prometheus can't be used: "+want {
				t.Errorf("the error is %v, want %s", err, want)
			}
		})
	}
}

func TestShownAddressesHaveNoSecrets(t *testing.T) {
	for address, want := range map[string]string{
		"http://prometheus:9090/tenant":         "http://prometheus:9090/tenant",
		"http://user:hunter2@prometheus:9090/a": "http://prometheus:9090",
		"https://hunter2@prometheus":            "https://prometheus",
		"https://prometheus/a?token=hunter2":    "https://prometheus",
		"https://prometheus/a#hunter2":          "https://prometheus",
		"https://user:12/hunter2@prometheus":    "an address with credentials in it",
		"https://user:hunter2/x@prometheus":     "an address with credentials in it",
		"https://%zz?token=hunter2":             "an address with credentials in it",
	} {
		if got := Shown(address); got != want || strings.Contains(got, "hunter2") {
			t.Errorf("%s is shown as %q, want %q", address, got, want)
		}
		if Showable(address) != (want == address) {
			t.Errorf("%s: showable is %t", address, Showable(address))
		}
	}
}
