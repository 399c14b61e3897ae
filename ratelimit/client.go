package ratelimit

import (
	"net/http"
	"net/netip"
	"strings"
)

// Client returns the address of who sent r: the one that has connected, or, as
// long as that is one of Proxies, the one that it says it forwards for, from
// right to left in the header field, which is from the nearest to the farthest.
// Where a proxy names nobody, or nothing that is an address, it is the proxy's
// own. What is left of the first address that is not a proxy's is not looked at:
// the client may have written it.
//
// An IPv4 address within an IPv6 one is IPv4, zones are left out. The address is
// not valid where RemoteAddr is none, as with a server on a Unix socket: set
// Key there.
func (h *HTTP) Client(r *http.Request) netip.Addr {
	addr := address(r.RemoteAddr)
	name, read, separate := "X-Forwarded-For", address, lastElement
	if h.Forwarded {
		name, read, separate = "Forwarded", forwardedFor, lastForwarded
	}
	lines := r.Header.Values(name)
	for i := len(lines) - 1; i >= 0; i-- {
		for line := lines[i]; line != ""; {
			if !h.trusts(addr) {
				return addr
			}
			var element string
			line, element = separate(line)
			if element = strings.Trim(element, " \t"); element == "" {
				continue // lists may have empty elements (RFC 9110, 5.6.1)
			}
			next := read(element)
			if !next.IsValid() {
				return addr
			}
			addr = next
		}
	}
	return addr
}

// Network returns the network of Client, cut to IPv4 or IPv6 bits, as a key:
// "192.0.2.7", "2001:db8::/64". Where the client has no address it is
// RemoteAddr.
func (h *HTTP) Network(r *http.Request) string {
	addr := h.Client(r)
	switch {
	case !addr.IsValid():
		return r.RemoteAddr
	case addr.Is4():
		return cut(addr, h.IPv4, 32)
	default:
		return cut(addr, h.IPv6, 64)
	}
}

func cut(addr netip.Addr, bits, otherwise int) string {
	if bits == 0 {
		bits = otherwise
	}
	if bits == addr.BitLen() {
		return addr.String()
	}
	p, _ := addr.Prefix(bits) // bits are checked
	return p.String()
}

func (h *HTTP) trusts(addr netip.Addr) bool {
	for _, p := range h.Proxies {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}

// address reads "192.0.2.7", "192.0.2.7:80", "2001:db8::1", "[2001:db8::1]" and
// "[2001:db8::1]:80", in the brackets also with a zone.
func address(s string) netip.Addr {
	if p, err := netip.ParseAddrPort(s); err == nil {
		return p.Addr().Unmap().WithZone("")
	}
	if inner, ok := strings.CutPrefix(s, "["); ok {
		if inner, ok = strings.CutSuffix(inner, "]"); !ok {
			return netip.Addr{}
		}
		s = inner
	}
	addr, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}
	}
	return addr.Unmap().WithZone("")
}

// lastElement takes the last element of a list off it.
func lastElement(list string) (rest, element string) {
	i := strings.LastIndexByte(list, ',')
	if i < 0 {
		return "", list
	}
	return list[:i], list[i+1:]
}
