package testenv

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// apiHosts makes virtual hosts by the management API of a broker that the tests did not start.
type apiHosts struct {
	base *url.URL
	user string
}

func existingServer(amqpURL, managementURL string) (*Server, error) {
	u, err := url.Parse(amqpURL)
	if err != nil {
		return nil, fmt.Errorf("reading %s: not a URL", AMQPURL)
	}
	if u.Path == "" {
		u.Path = "/"
	}
	base := &url.URL{Scheme: "http", Host: net.JoinHostPort(u.Hostname(), "15672"), User: u.User}
	if managementURL != "" {
		if base, err = url.Parse(managementURL); err != nil {
			return nil, fmt.Errorf("reading %s: not a URL", ManagementURL)
		}
	}
	hosts := apiHosts{base: base, user: u.User.Username()}
	if err := hosts.call(http.MethodGet, "overview", ""); err != nil {
		return nil, fmt.Errorf("the broker of %s makes virtual hosts by its management API, which %s can name: %w", AMQPURL, ManagementURL, err)
	}
	return &Server{url: u.String(), vhosts: hosts}, nil
}

func (a apiHosts) add(name string) error {
	if err := a.call(http.MethodPut, "vhosts/"+name, "{}"); err != nil {
		return err
	}
	return a.call(http.MethodPut, "permissions/"+name+"/"+url.PathEscape(a.user), `{"configure":".*","write":".*","read":".*"}`)
}

func (a apiHosts) remove(name string) error { return a.call(http.MethodDelete, "vhosts/"+name, "") }

func (a apiHosts) call(method, path, body string) error {
	target := *a.base
	target.User = nil
	req, err := http.NewRequest(method, strings.TrimSuffix(target.String(), "/")+"/api/"+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if password, ok := a.base.User.Password(); ok {
		req.SetBasicAuth(a.base.User.Username(), password)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, text)
	}
	return nil
}
