"""Facts about countries, one a line: country | capital | continent | language | currency.

Read by candidates.py. Only what is not disputed: countries with two capitals, straddling continents or with several
main languages are left out or have an empty field.
"""

from typing import Final

COUNTRIES: Final = """
France | Paris | Europe | French | euro
Germany | Berlin | Europe | German | euro
Italy | Rome | Europe | Italian | euro
Spain | Madrid | Europe | Spanish | euro
Portugal | Lisbon | Europe | Portuguese | euro
Poland | Warsaw | Europe | Polish | zloty
Greece | Athens | Europe | Greek | euro
Austria | Vienna | Europe | German | euro
Hungary | Budapest | Europe | Hungarian | forint
Ireland | Dublin | Europe | | euro
Sweden | Stockholm | Europe | Swedish | krona
Norway | Oslo | Europe | Norwegian | krone
Denmark | Copenhagen | Europe | Danish | krone
Finland | Helsinki | Europe | Finnish | euro
Iceland | Reykjavik | Europe | Icelandic |
Russia | Moscow | | Russian | ruble
Ukraine | Kyiv,Kiev | Europe | Ukrainian |
Romania | Bucharest | Europe | Romanian |
Bulgaria | Sofia | Europe | Bulgarian |
Croatia | Zagreb | Europe | Croatian | euro
Serbia | Belgrade | Europe | Serbian |
Slovenia | Ljubljana | Europe | Slovenian,Slovene | euro
Slovakia | Bratislava | Europe | Slovak | euro
Albania | Tirana | Europe | Albanian |
Belgium | Brussels | Europe | | euro
Switzerland | Bern | Europe | | franc
Luxembourg | | Europe | | euro
Latvia | Riga | Europe | Latvian | euro
Lithuania | Vilnius | Europe | Lithuanian | euro
Estonia | Tallinn | Europe | Estonian | euro
Belarus | Minsk | Europe | |
Moldova | Chisinau | Europe | |
Malta | Valletta | Europe | | euro
the Netherlands | Amsterdam | Europe | Dutch | euro
the United Kingdom | London | Europe | English | pound
Turkey | Ankara | | Turkish | lira
Japan | Tokyo | Asia | Japanese | yen
China | Beijing | Asia | Chinese,Mandarin | yuan,renminbi
India | New Delhi | Asia | | rupee
South Korea | Seoul | Asia | Korean | won
North Korea | Pyongyang | Asia | Korean | won
Vietnam | Hanoi | Asia | Vietnamese | dong
Thailand | Bangkok | Asia | Thai | baht
Mongolia | Ulaanbaatar,Ulan Bator | Asia | Mongolian |
Nepal | Kathmandu | Asia | Nepali | rupee
Pakistan | Islamabad | Asia | | rupee
Bangladesh | Dhaka | Asia | Bengali,Bangla | taka
Afghanistan | Kabul | Asia | |
Iran | Tehran | Asia | Persian,Farsi | rial
Iraq | Baghdad | Asia | | dinar
Syria | Damascus | Asia | Arabic |
Lebanon | Beirut | Asia | Arabic |
Jordan | Amman | Asia | Arabic | dinar
Saudi Arabia | Riyadh | Asia | Arabic | riyal
Qatar | Doha | Asia | Arabic |
Oman | Muscat | Asia | Arabic |
Kuwait | Kuwait City | Asia | Arabic | dinar
Cambodia | Phnom Penh | Asia | Khmer |
Laos | Vientiane | Asia | Lao |
the Philippines | Manila | Asia | | peso
Uzbekistan | Tashkent | Asia | Uzbek |
Bhutan | Thimphu | Asia | |
Egypt | Cairo | | Arabic | pound
Morocco | Rabat | Africa | | dirham
Algeria | Algiers | Africa | | dinar
Tunisia | Tunis | Africa | | dinar
Libya | Tripoli | Africa | Arabic | dinar
Sudan | Khartoum | Africa | | pound
Kenya | Nairobi | Africa | | shilling
Ethiopia | Addis Ababa | Africa | | birr
Nigeria | Abuja | Africa | English | naira
Ghana | Accra | Africa | English |
Senegal | Dakar | Africa | |
Uganda | Kampala | Africa | | shilling
Rwanda | Kigali | Africa | |
Zambia | Lusaka | Africa | |
Zimbabwe | Harare | Africa | |
Angola | Luanda | Africa | Portuguese |
Mozambique | Maputo | Africa | Portuguese |
Namibia | Windhoek | Africa | |
Madagascar | Antananarivo | Africa | |
Somalia | Mogadishu | Africa | |
Mali | Bamako | Africa | |
Chad | | Africa | |
Botswana | Gaborone | Africa | | pula
Cameroon | Yaounde,Yaoundé | Africa | |
Malawi | Lilongwe | Africa | |
Liberia | Monrovia | Africa | English |
Canada | Ottawa | North America | | dollar
the United States | Washington | North America | English | dollar
Mexico | Mexico City | North America | Spanish | peso
Cuba | Havana | North America | Spanish | peso
Jamaica | Kingston | North America | English | dollar
Panama | Panama City | North America | Spanish |
Costa Rica | San Jose,San José | North America | Spanish |
Guatemala | Guatemala City | North America | Spanish | quetzal
Honduras | Tegucigalpa | North America | Spanish |
Nicaragua | Managua | North America | Spanish |
the Dominican Republic | Santo Domingo | North America | Spanish | peso
Brazil | Brasilia,Brasília | South America | Portuguese | real
Argentina | Buenos Aires | South America | Spanish | peso
Chile | Santiago | South America | Spanish | peso
Peru | Lima | South America | Spanish | sol
Colombia | Bogota,Bogotá | South America | Spanish | peso
Venezuela | Caracas | South America | Spanish |
Ecuador | Quito | South America | Spanish | dollar
Uruguay | Montevideo | South America | Spanish | peso
Paraguay | Asuncion,Asunción | South America | Spanish |
Australia | Canberra | | English | dollar
New Zealand | Wellington | | English | dollar
Fiji | Suva | | | dollar
"""

CITIES: Final = """
Milan | Italy
Venice | Italy
Naples | Italy
Florence | Italy
Munich | Germany
Hamburg | Germany
Frankfurt | Germany
Cologne | Germany
Barcelona | Spain
Seville | Spain
Lyon | France
Marseille | France
Nice | France
Toulouse | France
Porto | Portugal
Krakow | Poland
Manchester | England,United Kingdom,UK,Britain
Liverpool | England,United Kingdom,UK,Britain
Glasgow | Scotland,United Kingdom,UK,Britain
Edinburgh | Scotland,United Kingdom,UK,Britain
Osaka | Japan
Kyoto | Japan
Hiroshima | Japan
Shanghai | China
Mumbai | India
Chennai | India
Kolkata | India
Bangalore | India
Karachi | Pakistan
Lahore | Pakistan
Busan | South Korea,Korea
Sydney | Australia
Melbourne | Australia
Brisbane | Australia
Auckland | New Zealand
Toronto | Canada
Vancouver | Canada
Montreal | Canada
Chicago | United States,USA,America
Boston | United States,USA,America
Rio de Janeiro | Brazil
Sao Paulo | Brazil
Cape Town | South Africa
Johannesburg | South Africa
Casablanca | Morocco
Lagos | Nigeria
Mombasa | Kenya
Alexandria | Egypt
Istanbul | Turkey
Saint Petersburg | Russia
Geneva | Switzerland
Zurich | Switzerland
Salzburg | Austria
Rotterdam | Netherlands
Antwerp | Belgium
Cancun | Mexico
Guadalajara | Mexico
Cusco | Peru
"""
