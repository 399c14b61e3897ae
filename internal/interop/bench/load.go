package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// load is who asks for orders.
type load struct {
	url     string
	clients int

	mu        sync.Mutex
	ids       []string
	latencies []time.Duration
}

const body = `{"totalAmount":"99.99","status":"pending","userId":"user1"}`

// run places orders for so long, each client one after the other.
func (l *load) run(ctx context.Context, d time.Duration) error {
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: l.clients}}
	defer client.CloseIdleConnections()
	g, ctx := errgroup.WithContext(ctx)
	end := time.Now().Add(d)
	for range l.clients {
		g.Go(func() error {
			var ids []string
			var latencies []time.Duration
			for begun := time.Now(); begun.Before(end); begun = time.Now() {
				id, err := place(ctx, client, l.url)
				if err != nil {
					return err
				}
				ids = append(ids, id)
				latencies = append(latencies, time.Since(begun))
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			l.ids = append(l.ids, ids...)
			l.latencies = append(l.latencies, latencies...)
			return nil
		})
	}
	return g.Wait()
}

func place(ctx context.Context, client *http.Client, url string) (id string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/orders", bytes.NewReader([]byte(body)))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	var answer struct{ Data struct{ ID string } }
	if err := json.Unmarshal(b, &answer); err != nil || resp.StatusCode != http.StatusCreated || answer.Data.ID == "" {
		return "", fmt.Errorf("status %d: %s", resp.StatusCode, b)
	}
	return answer.Data.ID, nil
}

// allPaid waits until each order is listed as paid, and returns how long that
// took from begun on.
func (l *load) allPaid(ctx context.Context, begun time.Time) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	for {
		paid, err := l.paid(ctx)
		if err != nil {
			return 0, err
		}
		left := 0
		for _, id := range l.ids {
			if !paid[id] {
				left++
			}
		}
		if left == 0 {
			return time.Since(begun), nil
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return 0, fmt.Errorf("%d of %d orders are not paid: %w", left, len(l.ids), ctx.Err())
		}
	}
}

// paid are the orders that are listed as paid.
func (l *load) paid(ctx context.Context) (map[string]bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url+"/orders", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct{ Data []struct{ ID, Status string } }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, err
	}
	paid := map[string]bool{}
	for _, o := range answer.Data {
		paid[o.ID] = o.Status == "paid"
	}
	return paid, nil
}

// result is one round.
type result struct {
	orders    int
	took      time.Duration
	latencies []time.Duration
	paid      time.Duration // from the first order that counts until all were paid
	cpu       time.Duration // of the shop's process, for each order from its start to its end
}

func (r result) rate() float64 { return float64(r.orders) / r.took.Seconds() }

// at is a quantile of the latencies.
func (r result) at(q float64) time.Duration {
	slices.Sort(r.latencies)
	return r.latencies[min(len(r.latencies)-1, int(q*float64(len(r.latencies))))]
}

func (r result) String() string {
	return fmt.Sprintf("%6.0f/s  p50 %6.1f ms  p99 %6.1f ms  all paid after %4.1f s  %4.0f µs of processor time for each order",
		r.rate(), ms(r.at(0.50)), ms(r.at(0.99)), r.paid.Seconds(), float64(r.cpu)/float64(time.Microsecond))
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
