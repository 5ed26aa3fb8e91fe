// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"time"
)

// due is when request i of a run at this rate (per second) is due, counted from the start.
func due(i int64, rate float64) time.Duration {
	return time.Duration(float64(i) / rate * float64(time.Second))
}

// pace calls fire once for each request when it is due, and for all that are due at once when it was
// held up. It returns when ctx ends or take says that there is no request left to send.
func pace(ctx context.Context, rate float64, take func() bool, fire func(due time.Time)) {
	start := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for i := int64(0); ; i++ {
		at := start.Add(due(i, rate))
		if wait := time.Until(at); wait > 0 {
			timer.Reset(wait)
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
			}
		}
		if ctx.Err() != nil || !take() {
			return
		}
		fire(at)
	}
}
