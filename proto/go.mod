module github.com/carillon-rt/carillon/proto

go 1.26.0


