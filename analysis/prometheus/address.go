// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package prometheus

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

// ErrAddress: an address can't be used, whoever may be there. No error with it in its chain has anything of the address
// in its text, for that may hold a password.
var ErrAddress = errors.New("the address of Prometheus can't be used")

// CheckAddress says, for users, why a base address can't be asked, as an ErrAddress.
func CheckAddress(address string) error {
	u, err := url.Parse(address)
	switch {
	case err != nil: // whose text quotes from the address
		return fmt.Errorf("%w: it is not a valid URL", ErrAddress)
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("%w: it does not begin with http:// or https://", ErrAddress)
	case u.Hostname() == "":
		return fmt.Errorf("%w: it names no host", ErrAddress)
	case !validPort(u.Port()):
		return fmt.Errorf("%w: its port is not a number from 1 to 65535", ErrAddress)
	}
	return nil
}

// validPort says whether a port is one; none is the scheme's.
func validPort(port string) bool {
	n, err := strconv.ParseUint(port, 10, 16)
	return port == "" || err == nil && n > 0
}

// unshowable are the characters of which an address that may be shown has none: before an @ there are a user's name and
// password, after a ? a query, which may hold a token, after a # a fragment.
const unshowable = "@?#"

// Showable says that an address has no place for credentials, so that it can be shown to anybody.
func Showable(address string) bool { return !strings.ContainsAny(address, unshowable) }

// Shown is an address as it is shown to anybody: scheme and host alone where the rest may hold credentials.
func Shown(address string) string {
	if Showable(address) {
		return address
	}
	u, err := url.Parse(address)
	if err != nil || strings.Contains(u.Path, "@") { // then what is before a slash is the beginning of a password
		return "an address with credentials in it"
	}
	return u.Scheme + "://" + u.Host
}
