// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"syscall"

	"google.golang.org/grpc/status"
)

// Classes of failures that are not a status.
const (
	ClassTimeout    = "timeout"    // no complete answer in time
	ClassConnect    = "connect"    // no connection came about
	ClassReset      = "reset"      // the connection broke
	ClassEOF        = "eof"        // the connection was closed before an answer
	ClassTruncated  = "truncated"  // the answer began and did not end as it should
	ClassUnexpected = "unexpected" // an answer that this app does not give
	ClassOverload   = "overload"   // this client had too many requests outstanding; nothing was sent
	ClassTransport  = "transport"  // any other error
)

func classOfStatus(code int) string { return "status-" + strconv.Itoa(code) }

func classOfGRPC(err error) string { return "grpc-" + status.Code(err).String() }

// classOfError puts an error of an HTTP client into a class.
func classOfError(err error) string {
	var timeout net.Error
	var op *net.OpError
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return ClassTimeout
	case errors.As(err, &op) && op.Op == "dial":
		return ClassConnect
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return ClassReset
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return ClassEOF
	}
	return ClassTransport
}
