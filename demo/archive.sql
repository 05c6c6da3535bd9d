create table users (
  id int primary key auto_increment,
  name varchar(80) not null,
  email varchar(120) not null,
  city varchar(60) not null
);

insert into users (id, name, email, city) values
  (1, 'Ada Lovelace', 'ada@shop.example', 'Marylebone'),
  (9, 'Charles Babbage', 'charles@shop.example', 'London');

create table orders (
  id int primary key auto_increment,
  user_id int not null,
  item varchar(80) not null,
  amount decimal(10,2) not null,
  placed date not null,
  key by_user (user_id)
);

insert into orders (id, user_id, item, amount, placed) values
  (1, 9, 'Difference engine, unfinished', 17000.00, '2024-01-15'),
  (2, 1, 'Sketch of the analytical engine', 12.00, '2025-10-10'),
  (3, 9, 'Cow-catcher', 85.00, '2025-12-01');
