// SPDX-FileCopyrightText: The Headgate Authors
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"sync"
)

// counters are the first values of a Prometheus' samples since a fault was set, by name and labels.
type counters struct {
	mu    sync.Mutex
	first map[string]float64
}

// countersKey is the key by which a request's context has the counters.
type countersKey struct{}

func (c *counters) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.first = map[string]float64{}
}

// since is a value as it would be had its process begun with the first one.
func (c *counters) since(series string, value float64) float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	first, known := c.first[series]
	if !known || value < first { // it has really begun again
		first = 0
		if !known {
			first = value
		}
		c.first[series] = first
	}
	return value - first
}

// restarted makes every sample of an answer to an instant query begin again.
func restarted(r *http.Response) error {
	c, _ := r.Request.Context().Value(countersKey{}).(*counters)
	var failure error
	err := changed(r, func(body []byte) []byte {
		body, failure = c.restart(body)
		return body
	})
	if err != nil {
		return err
	}
	return failure
}

func (c *counters) restart(body []byte) ([]byte, error) {
	var answer map[string]json.RawMessage
	var data map[string]json.RawMessage
	var samples []map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(body, &answer), json.Unmarshal(answer["data"], &data), json.Unmarshal(data["result"], &samples)); err != nil {
		return body, nil //nolint:nilerr // it has no samples
	}
	for _, s := range samples {
		var value []any
		if !bytes.Contains(s["metric"], []byte(`"__name__"`)) || json.Unmarshal(s["value"], &value) != nil || len(value) != 2 {
			continue
		}
		text, _ := value[1].(string)
		if v, err := strconv.ParseFloat(text, 64); err == nil {
			value[1] = strconv.FormatFloat(c.since(string(s["metric"]), v), 'f', -1, 64)
			if s["value"], err = json.Marshal(value); err != nil {
				return nil, err
			}
		}
	}
	var err error
	if data["result"], err = json.Marshal(samples); err != nil {
		return nil, err
	}
	if answer["data"], err = json.Marshal(data); err != nil {
		return nil, err
	}
	return json.Marshal(answer)
}
