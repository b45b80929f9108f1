module github.com/carillon-rt/carillon/standalone

go 1.26.0

require github.com/carillon-rt/carillon/proto v0.0.0

require golang.org/x/crypto v0.58.0

require golang.org/x/sys v0.49.0 // indirect

replace github.com/carillon-rt/carillon/proto => ../proto

replace github.com/carillon-rt/carillon/kit => ../kit

replace github.com/carillon-rt/carillon/gateway => ../gateway

replace github.com/carillon-rt/carillon/router => ../router

replace github.com/carillon-rt/carillon/authsvc => ../authsvc

replace github.com/carillon-rt/carillon/presence => ../presence

replace github.com/carillon-rt/carillon/api => ../api
