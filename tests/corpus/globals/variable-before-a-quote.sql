SELECT :E'--\'\! id
1\'';
