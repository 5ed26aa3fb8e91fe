// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
)

// ErrAccess: Prometheus is there and does not let itself be asked, for something that users can mend, as a wrong password.
var ErrAccess = errors.New("Prometheus can't be asked") //nolint:staticcheck // a proper name

// accessError says, for users, why a Prometheus can't be asked. It has no address in it.
type accessError struct{ why string }

func (e accessError) Error() string { return e.why }

// strictTransport takes a redirect and a refusal for an error. A redirect is never followed: with the next address it
// would be told the credentials too, and whoever may write a policy could have anything asked from here.
type strictTransport struct{ next http.RoundTripper }

func (t strictTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	var why string
	switch code := resp.StatusCode; {
	case code >= 300 && code < 400:
		why = fmt.Sprintf("it redirects (%d), which is not followed; name the address that it redirects to", code)
	case isRefusal(code):
		why = fmt.Sprintf("it refuses the credentials (%d %s)", code, http.StatusText(code))
	default:
		return resp, nil
	}
	_ = resp.Body.Close() // nobody reads it
	return nil, accessError{why}
}

func isRefusal(code int) bool {
	return code == http.StatusUnauthorized || code == http.StatusForbidden
}

// access says, for users, what keeps a Prometheus from being asked, where it is something that they can mend; else empty.
func access(err error) string {
	var known accessError
	var certificate *tls.CertificateVerificationError
	var alert *net.OpError
	switch {
	case errors.As(err, &known):
		return known.why
	case errors.As(err, &certificate):
		return "its certificate is not trusted: " + certificate.Err.Error()
	case errors.As(err, &alert) && alert.Op == "remote error": // crypto/tls says so of what the other side complains about
		return "it refuses the connection: " + alert.Err.Error()
	case errors.Is(err, http.ErrSchemeMismatch):
		return "it does not speak TLS; its address should begin with http://"
	}
	return ""
}
